"""What the stores of lake tables share. A dataset is two tables, TABLE and TABLE_rejected.

The rejected rows are committed first, under the name of the version; then the commit of the accepted rows, which
replaces all rows of TABLE, carries the manifest and makes both live. docs/decisions/lake-tables.md says why.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
import ray.data

from nightprice.address import Address
from nightprice.errors import first_line
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.errors import GateRefused
from pipeline.io.lake.staged import StagedFiles
from pipeline.io.lake.table import MANIFEST, VERSION, LakeTable
from pipeline.io.stores import AddressError, Columns, Published, Source, Store, StoreError
from pipeline.io.table_rows import as_raw_rows
from pipeline.io.tagged_blocks import REJECTED
from pipeline.manifests import parse_manifest


class LakeStore(Store):
    """A store of tables whose states have names, and can be read again."""

    @abstractmethod
    def table(self, address: Address) -> LakeTable:
        """The table of an address; AddressError says what is wrong with it."""

    def read(self, address: Address, columns: Columns) -> Source:
        """The chosen columns of one state of a table, which the manifest names. Lists arrive as JSON text."""
        table = self.table(address)
        snapshot = table.snapshot()
        where = table.at(snapshot).display
        rows = table.rows(snapshot, columns(table.columns(snapshot), where))
        return Source(map_tables(rows, partial(as_raw_rows, where=where)), [{"path": where}])

    @contextmanager
    def write(self, address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str) -> Iterator[StagedFiles]:
        table = self.table(address)
        if table.wanted:
            raise AddressError(f'"{address}" cannot be written to: it names a version. Leave out ?version=….')
        staged = StagedFiles(table, rejected)
        try:
            staged.write(rows, key)
            yield staged
        except GateRefused:
            staged.commit(REJECTED)
            raise
        finally:
            staged.discard()

    def open(self, address: Address) -> Published:
        """The dataset of the newest commit with a manifest, or that of the version that the address names."""
        table = self.table(address)
        for snapshot in table.snapshots():
            version = snapshot.properties.get(VERSION)
            if MANIFEST in snapshot.properties and table.wanted in (None, version, str(snapshot.id)):
                try:
                    manifest = parse_manifest(snapshot.properties[MANIFEST], address.display)
                except ValueError as error:
                    raise StoreError(
                        f'"{address}" holds no manifest: {first_line(error)}. Make the dataset anew with `nightprice '
                        "process`."
                    ) from error
                return Published(manifest, table.at(snapshot.id), table.rejected().at(manifest["version"]))
        wanted = f' of version "{table.wanted}"' if table.wanted else ""
        raise AddressError(f'"{address}" is not a processed dataset{wanted}. Make one with `nightprice process`.')
