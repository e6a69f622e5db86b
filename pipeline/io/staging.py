"""How stores of tables write: into staging tables while tasks run; then, checked against what the tasks count, all of
it goes live at once.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import pyarrow as pa
import ray.data

from nightprice.address import Address
from nightprice.errors import first_line
from pipeline.errors import GateRefused
from pipeline.io.stores import AddressError, Published, Store, StoreError, exactly
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, WriteStats, write_tagged
from pipeline.manifests import DatasetManifest, parse_manifest

logger = logging.getLogger(__name__)

MANIFEST = "manifest"


class TableAddress(Protocol):
    """The address of a table, taken apart."""

    @property
    def address(self) -> Address:
        """The whole address."""

    @property
    def table(self) -> str | None:
        """The name of the table; None for a query."""

    def writable_table(self) -> str:
        """The name of the table; StoreError if the address names something that is only for reading."""

    def of_table(self, table: str) -> Address:
        """The address of another table of the same database."""


class Staging(ABC):
    """The staging tables of one version of one table: TABLE_accepted_1a2b3c and TABLE_rejected_1a2b3c.

    It travels to the tasks.
    """

    def __init__(self, target: TableAddress, version: str) -> None:
        self._target = target
        self.version = version
        table = target.writable_table()
        suffix = version.rpartition("-")[2]
        self.live = {ACCEPTED: table, REJECTED: f"{table}_{REJECTED}", MANIFEST: f"{table}_{MANIFEST}"}
        self.staged = {kind: f"{table}_{kind}_{suffix}" for kind in (ACCEPTED, REJECTED)}

    @abstractmethod
    def tables(self) -> Collection[str]:
        """The names of the tables of the database."""

    @abstractmethod
    def create(self, kind: str, schema: pa.Schema) -> None:
        """Make the staging table of accepted or rejected rows, unless another task did."""

    @abstractmethod
    def write(self, kind: str, rows: pa.Table, task: str) -> str:
        """Store the rows of one task; returns the name that tells them from those of other attempts."""

    @abstractmethod
    def count(self, kind: str, written: Sequence[str]) -> int:
        """How many rows a staging table holds under the names that `write` returned."""

    @abstractmethod
    def publish(self, manifest: DatasetManifest, written: Sequence[str]) -> None:
        """Replace the live tables by what is staged under these names, and write the manifest: readers see all of
        it or nothing.
        """

    @abstractmethod
    def drop_bookkeeping_column(self, kind: str, written: Sequence[str]) -> None:
        """Leave in a staging table what is staged under these names, without the column that holds the names."""

    @abstractmethod
    def drop(self, tables: Iterable[str]) -> None:
        """Drop those of the tables that exist."""

    def display(self, kind: str) -> str:
        """The address of a staging table, without secrets."""
        return self._target.of_table(self.staged[kind]).display

    def start(self, rejected: pa.Schema) -> None:
        """Check that the live tables are ours to replace, and make the table of rejected rows.

        Raises StoreError for tables that another program made: they would be dropped.
        """
        existing = self.tables()
        taken = [name for name in self.live.values() if name in existing]
        if taken and self.live[MANIFEST] not in existing:
            raise StoreError(
                f'"{self._target.address}": the table "{taken[0]}" exists and was not written by nightprice '
                f'(there is no "{self.live[MANIFEST]}"). Write to another table, or drop that one.'
            )
        self.create(REJECTED, rejected)

    def reconcile(self, stats: WriteStats) -> None:
        """Raise StoreError unless the staging tables hold exactly as many rows as the tasks wrote."""
        existing = self.tables()
        for kind, expected in ((ACCEPTED, stats.accepted), (REJECTED, stats.rejected)):
            rows = self.count(kind, stats.written) if self.staged[kind] in existing else 0
            if rows != expected:
                raise StoreError(
                    f'"{self.display(kind)}" holds {rows:,} rows, but {expected:,} were written. Nothing was '
                    "published: run it again."
                )

    def keep_rejected(self, written: Sequence[str]) -> None:
        """Leave the rejected rows in their staging table, for a look."""
        self.drop_bookkeeping_column(REJECTED, written)
        del self.staged[REJECTED]

    def clean(self) -> None:
        """Drop what is still staged; a failure is only a warning."""
        try:
            self.drop(self.staged.values())
        except StoreError as error:
            logger.warning("The staging tables %s could not be dropped: %s", ", ".join(self.staged.values()), error)


class StagedTables:
    """Staging tables that hold all rows, and are not live yet."""

    def __init__(self, staging: Staging, stats: WriteStats) -> None:
        self._staging = staging
        self.version = staging.version
        self.stats = stats
        self.rejected_at = staging.display(REJECTED)

    def publish(self, manifest: DatasetManifest) -> None:
        """Make them TABLE, TABLE_rejected and TABLE_manifest."""
        self._staging.publish(manifest, self.stats.written)


@contextmanager
def write_staged(rows: ray.data.Dataset, staging: Staging, rejected: pa.Schema, key: str) -> Iterator[StagedTables]:
    """Write tagged blocks to staging tables; `publish` makes them live.

    If anything fails before, what was live stays live; of a refused version the rejected rows stay in their staging
    table.
    """
    staging.start(rejected)
    stats = WriteStats()
    try:
        # The table of the accepted rows is made for the columns of the first block.
        stats = write_tagged(rows, staging.write, key, partial(staging.create, ACCEPTED))
        staging.reconcile(stats)
        yield StagedTables(staging, stats)
    except GateRefused:
        staging.keep_rejected(stats.written)
        raise
    finally:
        staging.clean()


class TableStore(Store):
    """A store of tables: a dataset is TABLE, TABLE_rejected, and TABLE_manifest with one row and one column."""

    @abstractmethod
    def table_address(self, address: Address) -> TableAddress:
        """Take an address apart; StoreError says what is wrong with it."""

    @abstractmethod
    def staging(self, address: Address, key: str) -> Staging:
        """The staging tables of a new version; StoreError if the address is only for reading."""

    def write(
        self, address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str
    ) -> AbstractContextManager[StagedTables]:
        return write_staged(rows, self.staging(address, key), rejected, key)

    def open(self, address: Address) -> Published:
        target = self.table_address(address)
        table = target.table
        if table is None:
            raise AddressError(f'"{address}" is a query, and a dataset is a table. Name the table that was written.')
        at = target.of_table(f"{table}_{MANIFEST}")
        rows = self.read(at, exactly(MANIFEST)).rows
        rows.set_name(MANIFEST)
        manifests = rows.take(1)
        if not manifests:
            raise AddressError(
                f'"{address}" is not a processed dataset: its table of the manifest is empty. Make one with '
                "`nightprice process`."
            )
        try:
            manifest = parse_manifest(manifests[0][MANIFEST], at.display)
        except ValueError as error:
            raise StoreError(
                f'"{at.display}" holds no manifest: {first_line(error)}. Make the dataset anew with `nightprice '
                "process`."
            ) from error
        return Published(manifest, address, target.of_table(f"{table}_{REJECTED}"))
