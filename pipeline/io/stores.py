"""The two contracts of a store, and the table of the stores that are known.

A source is `(uri, columns) -> Dataset`, a sink `(dataset, uri, seal) -> manifest`, each one function
registered for the schemes of its addresses. Other packages add theirs through the entry points
`nightprice.sources` and `nightprice.sinks` (name: the scheme; value: the function).
"""

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import ray.data

from nightprice.address import without_password
from nightprice.errors import ContractError, NightpriceError, UsageError, closest


class StoreError(NightpriceError):
    """A store that can't be read or written: the message names the address and the mend."""


class Columns(Protocol):
    """Given the columns that are there and where, says which to read, or raises ContractError."""

    def __call__(self, there: Sequence[str], where: str) -> list[str]: ...


def exactly(*names: str) -> Columns:
    """All of `names`, and no others."""

    def choose(there: Sequence[str], where: str) -> list[str]:
        for name in names:
            if name not in there:
                raise ContractError(
                    f'{where}: column "{name}" is missing.{closest(name, there)} Columns there: {", ".join(there)}.'
                )
        return list(names)

    return choose


Manifest = dict[str, Any]
Source = Callable[[str, Columns], ray.data.Dataset]
"""Reads the chosen columns as they are stored (CSV: as text), and adds `source_file` and, for lines that are no valid
row, `invalid_row`. Lazy: nothing of the store but names and sizes reaches the driver."""


class Seal(Protocol):
    """Called once by a sink when everything is written, with the counts of what was written.

    Returns the manifest that the sink must now publish together with the rows, or raises a NightpriceError to refuse:
    then the sink keeps the rejected rows for inspection and what was live before stays live.
    `version` names the run, `rejected_at` says where its rejected rows lie.
    """

    def __call__(self, tally: "Any", version: str, rejected_at: str) -> Manifest: ...


Sink = Callable[[ray.data.Dataset, str, Seal], Manifest]
"""Writes a dataset of parted blocks (`pipeline.io.tagged_blocks`), replacing what the address held, all or nothing."""

F = TypeVar("F")

_sources: dict[str, Source] = {}
_sinks: dict[str, Sink] = {}
# The modules with our own stores, imported when an address asks for them: each may need an extra.
_MODULES = {
    **dict.fromkeys(("file", "s3", "gs", "abfs", "abfss"), "pipeline.io.files"),
    **dict.fromkeys(("http", "https"), "pipeline.io.https"),
    **dict.fromkeys(("postgresql", "postgres", "sqlite"), "pipeline.io.sql.store"),
    "bigquery": "pipeline.io.bigquery.store",
}
_READ_ONLY = ("http", "https")


def source(*schemes: str) -> Callable[[Source], Source]:
    """Register a source for the schemes of its addresses."""
    return _registrar(_sources, schemes)


def sink(*schemes: str) -> Callable[[Sink], Sink]:
    """Register a sink for the schemes of its addresses."""
    return _registrar(_sinks, schemes)


def _registrar(table: dict[str, F], schemes: tuple[str, ...]) -> Callable[[F], F]:
    def register(function: F) -> F:
        table.update(dict.fromkeys(schemes, function))
        return function

    return register


def read(uri: str, columns: Columns) -> ray.data.Dataset:
    """The rows at an address, as its source gives them."""
    return _find(_sources, "nightprice.sources", uri)(uri, columns)


def write(dataset: ray.data.Dataset, uri: str, seal: Seal) -> Manifest:
    """Write a dataset of parted blocks to an address and publish it; returns the manifest."""
    return _find(_sinks, "nightprice.sinks", uri)(dataset, uri, seal)


def scheme_of(uri: str) -> str:
    """The scheme of an address; a path has the scheme "file". UsageError for a text that is no address.

    >>> scheme_of("s3://bucket/x"), scheme_of("/data/x.csv"), scheme_of("C:/data")
    ('s3', 'file', 'file')
    """
    if not uri.strip():
        raise UsageError("An address is blank. Name a folder, or an address as in docs/stores.md.")
    try:
        scheme = urlsplit(uri).scheme
    except ValueError as error:
        raise UsageError(f'"{uri}" is no address: {error}. Write it as in docs/stores.md.') from error
    return scheme if len(scheme) > 1 else "file"


def _find(table: dict[str, F], group: str, uri: str) -> F:
    scheme = scheme_of(uri)
    plugins = {point.name: point for point in entry_points(group=group)}
    if scheme not in table and scheme in plugins:
        table[scheme] = plugins[scheme].load()
    elif scheme not in table and scheme in _MODULES:
        importlib.import_module(_MODULES[scheme])
    if scheme not in table:
        known = sorted({*_MODULES, *table, *plugins}.difference(_READ_ONLY if group == "nightprice.sinks" else ()))
        kind = group.rpartition(".")[2]
        raise StoreError(
            f'"{without_password(uri)}": no such store among the {kind}: "{scheme}".{closest(scheme, known)} '
            f"Known: {', '.join(known)}."
        )
    return table[scheme]
