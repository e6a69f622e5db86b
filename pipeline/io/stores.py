"""What a store is, and the table of the stores that are known, by the scheme of their addresses.

Other packages add theirs through the entry point `nightprice.stores` (name: the scheme; value: a `Store`, or its
class).
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

import pyarrow as pa
import ray.data

from nightprice.address import Address
from nightprice.errors import NightpriceError, UsageError, closest, missing_column
from pipeline.io.tagged_blocks import WriteStats
from pipeline.manifests import DatasetManifest, SourceDescription


class StoreError(NightpriceError):
    """A store that can't be read or written: the message names the address and says what to do."""


class AddressError(StoreError, UsageError):
    """An address that can't be right: nothing is there, or nothing of the kind that is needed."""


class Columns(Protocol):
    """Chooses the columns to read, given those that are available at `where`, or raises ContractError."""

    def __call__(self, available: Sequence[str], where: str, /) -> list[str]: ...


def exactly(*names: str) -> Columns:
    """All of `names`, and no others."""

    def choose(available: Sequence[str], where: str) -> list[str]:
        for name in names:
            if name not in available:
                raise missing_column(where, [name], available)
        return list(names)

    return choose


@dataclass(frozen=True)
class Source:
    """What reading an address gives."""

    rows: ray.data.Dataset
    """The chosen columns as they are stored (CSV: as text), and `source_file`; for lines that are not a valid row,
    `invalid_row`. Lazy: only names and sizes reach the driver."""
    description: list[SourceDescription]
    """What these rows are read from, for the manifest."""
    left_out: Sequence[str] = ()
    """What lies at the address and is not read, such as files of other kinds; for the manifest."""
    tasks: int | None = None
    """How many tasks read them, where that is known: to show how far a run is."""


class Staged(Protocol):
    """A version that is written and that no reader sees until it is published."""

    @property
    def version(self) -> str:
        """Its name, from `new_version`."""

    @property
    def stats(self) -> WriteStats:
        """What was written."""

    @property
    def rejected_at(self) -> str:
        """Where its rejected rows lie while it is staged and if it is refused, for messages."""

    def publish(self, manifest: DatasetManifest) -> None:
        """Make the rows and the manifest what readers see, in one step."""


@dataclass(frozen=True)
class Published:
    """The live version at an address."""

    manifest: DatasetManifest
    accepted: Address
    """Where its accepted rows can be read."""
    rejected: Address
    """Where its rejected rows can be read."""


class Store(ABC):
    """One kind of store. One that can only be read leaves `write` and `open` as they are."""

    @abstractmethod
    def read(self, address: Address, columns: Columns) -> Source:
        """The rows at an address, and what they are read from, looked up once.

        Raises StoreError if there is nothing that can be read, ContractError (or `columns` does) if a column is
        missing; what concerns single files may be raised by the tasks.
        """

    def write(
        self, address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str
    ) -> AbstractContextManager[Staged]:
        """Write tagged blocks (`pipeline.io.tagged_blocks`) beside what is live at an address.

        Entering the context writes all rows and checks that what the store holds is what the tasks wrote. Leaving it
        without `publish`, or with an error, removes what was staged; with GateRefused, all but the rejected rows.
        `rejected` is the schema of rejected rows; `key` the column of accepted rows whose repeats are counted.
        """
        raise _read_only(address)

    def open(self, address: Address) -> Published:
        """The live version at an address; StoreError if there is none."""
        raise AddressError(f'"{address}" cannot hold a dataset. Name a folder, a bucket or a database that holds one.')


# Imported when an address asks for them: each may need an extra.
_BUILT_IN = {
    **dict.fromkeys(("file", "s3", "gs", "abfs", "abfss"), "pipeline.io.files.store:FileStore"),
    **dict.fromkeys(("http", "https"), "pipeline.io.https:HttpsStore"),
    **dict.fromkeys(("postgresql", "postgres", "sqlite"), "pipeline.io.sql.store:SqlStore"),
    "bigquery": "pipeline.io.bigquery.store:BigQueryStore",
    **dict.fromkeys(
        ("delta", "delta+s3", "delta+gs", "delta+abfs", "delta+abfss"), "pipeline.io.lake.delta:DeltaStore"
    ),
    "iceberg": "pipeline.io.lake.iceberg:IcebergStore",
}
_registered: dict[str, Store] = {}


def register(scheme: str, store: Store) -> None:
    """Use a store for the addresses of a scheme, in this process."""
    _registered[scheme] = store


def store_of(address: Address) -> Store:
    """The store of an address, by its scheme; StoreError if none is known."""
    scheme = address.scheme
    if scheme in _registered:
        return _registered[scheme]
    plugins = {point.name: point for point in entry_points(group="nightprice.stores")}
    if scheme in plugins:
        store = plugins[scheme].load()
    elif scheme in _BUILT_IN:
        store = pkgutil.resolve_name(_BUILT_IN[scheme])
    else:
        known = sorted({*_BUILT_IN, *_registered, *plugins})
        raise AddressError(
            f'"{address}": there is no store for "{scheme}".{closest(scheme, known)} Known: {", ".join(known)}.'
        )
    register(scheme, store() if isinstance(store, type) else store)
    return _registered[scheme]


def read(address: Address, columns: Columns) -> Source:
    """The rows at an address, and what they are read from."""
    return store_of(address).read(address, columns)


def write(address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str) -> AbstractContextManager[Staged]:
    """Write tagged blocks beside what is live at an address: see `Store.write`."""
    return store_of(address).write(address, rows, rejected, key)


def check_writable(address: Address) -> None:
    """Raise AddressError for an address whose store can only be read."""
    store = store_of(address)
    if type(store).write is Store.write:
        raise _read_only(address)


def _read_only(address: Address) -> AddressError:
    return AddressError(
        f'"{address}" can only be read. Write to a folder, a bucket or a database, as in docs/stores.md.'
    )


def open_published(address: Address) -> Published:
    """The live version at an address; StoreError if there is none."""
    return store_of(address).open(address)
