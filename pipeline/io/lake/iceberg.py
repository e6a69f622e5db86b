"""Iceberg tables: read by Ray's connector, committed by the library `pyiceberg`.

    iceberg://CATALOG/namespace.table

The catalog is one of pyiceberg's configuration: PYICEBERG_CATALOG__… variables, or ~/.pyiceberg.yaml.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import ray.data
from pyarrow import fs

from nightprice.address import Address
from nightprice.errors import NightpriceError, first_line
from pipeline.cluster.arrow_tasks import RETRIES, retried
from pipeline.io.lake.store import LakeStore
from pipeline.io.lake.table import CommitConflict, DataFile, LakeTable, Snapshot, task_count
from pipeline.io.stores import AddressError, StoreError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import CreateTableTransaction, Table

# Properties that name a class.
CLASSES = ("py-io-impl", "write.py-location-provider.impl")
# Where Iceberg puts files below the location of a table.
DATA = "data"


class IcebergStore(LakeStore):
    """Tables of Iceberg, in any catalog that pyiceberg knows."""

    def table(self, address: Address) -> LakeTable:
        return IcebergTable(address)


class IcebergTable(LakeTable):
    """A table of a catalog."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._catalog_name = address.parts.netloc
        self._name = unquote(address.parts.path).strip("/")
        names = self._name.split(".")
        if not self._catalog_name or len(names) < 2 or not all(names) or "/" in self._name:
            raise AddressError(f'"{address}" names no table. Write it like iceberg://CATALOG/namespace.table.')

    def snapshots(self) -> Iterator[Snapshot]:
        with self._errors():
            from pyiceberg.table.snapshots import ancestors_of

            table = self._load()
            if table is not None:
                for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
                    summary = snapshot.summary
                    yield Snapshot(snapshot.snapshot_id, summary.additional_properties if summary else {})

    def columns(self, snapshot: int) -> list[str]:
        with self._errors():
            return self._existing().scan(snapshot_id=snapshot).projection().column_names

    def rows(self, snapshot: int, columns: Sequence[str]) -> ray.data.Dataset:
        with self._errors(), retried():
            files = self._existing().scan(snapshot_id=snapshot).plan_files()
            rows: ray.data.Dataset = ray.data.read_iceberg(
                table_identifier=self._name,
                catalog_kwargs={"name": self._catalog_name},
                snapshot_id=snapshot,
                override_num_blocks=task_count([task.file.file_size_in_bytes for task in files]),
                ray_remote_args={"max_retries": RETRIES},
            )
            return rows.select_columns(list(columns))

    def location(self) -> tuple[fs.FileSystem, str]:
        with self._errors():
            from pyiceberg.io.pyarrow import PyArrowFileIO

            table = self._load()
            metadata = table.metadata if table else self._new_table(pa.schema([])).table_metadata
            files = PyArrowFileIO((table.io if table else self._catalog()).properties)
            scheme, host, path = files.parse_location(f"{metadata.location}/{DATA}")
            return files.fs_by_scheme(scheme, host), path

    def try_commit(self, schema: pa.Schema, files: Sequence[DataFile], properties: dict[str, str]) -> None:
        with self._errors():
            from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError, ValidationException
            from pyiceberg.expressions import AlwaysTrue

            table = self._load()
            try:
                if table:
                    transaction = table.transaction()
                    with transaction.update_schema() as update:
                        update.union_by_name(schema)
                    transaction.delete(AlwaysTrue())
                else:
                    transaction = self._new_table(schema)
                folder = f"{transaction.table_metadata.location}/{DATA}"
                paths = [f"{folder}/{file.path}" for file in files]
                # Their names are new: there is nothing to look up in what the table holds.
                transaction.add_files(paths, properties, check_duplicate_files=False)
                transaction.commit_transaction()
            except (CommitFailedException, TableAlreadyExistsError, ValidationException) as error:
                raise CommitConflict(
                    f'"{self.address}": {first_line(error)}. Nothing was published: run it again.'
                ) from error

    def _catalog(self) -> "Catalog":
        from pyiceberg.catalog import load_catalog

        catalog = load_catalog(self._catalog_name)
        load = catalog._load_file_io
        # pyiceberg would import and call the class that a property of a table names. `_load` refuses such a table.
        catalog._load_file_io = lambda properties={}, location=None: load(  # type: ignore[method-assign]
            _harmless(properties), location
        )
        return catalog

    def _load(self) -> "Table | None":
        from pyiceberg.exceptions import NoSuchTableError

        try:
            table = self._catalog().load_table(self._name)
        except NoSuchTableError:
            return None
        if _harmless(table.properties) != table.properties:
            raise StoreError(f'"{self.address}" names code to import ({" or ".join(CLASSES)}). Remove that property.')
        return table

    def _existing(self) -> "Table":
        table = self._load()
        if table is None:
            raise AddressError(f'"{self.address}": there is no table. Check the address.')
        return table

    def _new_table(self, schema: pa.Schema) -> "CreateTableTransaction":
        """Its commit makes the table, with its first rows."""
        return self._catalog().create_table_transaction(self._name, schema)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what pyiceberg raises into StoreError, one sentence that says what to do."""
        if find_spec("pyiceberg") is None:
            raise StoreError(
                f'"{self.address}" needs the extra "iceberg". Install it: pip install "nightprice[iceberg]".'
            )
        try:
            yield
        except NightpriceError:
            raise
        # Each kind of catalog has errors of its own: of SQL, of HTTP, of a cloud.
        except Exception as error:
            setting = f"PYICEBERG_CATALOG__{self._catalog_name.upper().replace('-', '_')}__URI"
            raise StoreError(
                f'"{self.address}": {first_line(error)}. Check the table, its namespace, which must exist, and the '
                f"catalog in ~/.pyiceberg.yaml or {setting}."
            ) from error


def _harmless(properties: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in properties.items() if name not in CLASSES}
