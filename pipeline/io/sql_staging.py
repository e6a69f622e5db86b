"""The tables of one run: staged while tasks write, then swapped with the live ones in one transaction."""

import json
from typing import Any

import pyarrow as pa

from pipeline.io.base import Manifest, StoreError
from pipeline.io.databases import TASK, Database, quoted
from pipeline.io.parts import ACCEPTED, REJECTED
from transforms.clean import REJECTED_SCHEMA

MANIFEST = "manifest"


class Staging:
    """The staging tables of one version of one table: TABLE_accepted_1a2b3c and TABLE_rejected_1a2b3c."""

    def __init__(self, database: Database, version: str) -> None:
        self._database = database
        self.version = version
        table = database.address.to_write()
        mark = version.rpartition("-")[2]
        self._live = {ACCEPTED: table, REJECTED: f"{table}_{REJECTED}", MANIFEST: f"{table}_{MANIFEST}"}
        self._staged = {part: f"{table}_{part}_{mark}" for part in (ACCEPTED, REJECTED)}
        longest = max(len(f"{_name(name)}{TASK}".encode()) for name in self._staged.values())
        if longest > database.longest_name:
            raise StoreError(
                f'"{database.address.shown}": the name of the table is too long by {longest - database.longest_name} bytes: '
                "the staging tables add to it. Take a shorter one."
            )

    def shown(self, part: str) -> str:
        """The address of a part's staging table."""
        return self._database.address.of_table(self._staged[part])

    def start(self) -> None:
        """Check that the live tables are ours to replace and that tables can be made.

        Raises StoreError for tables that another program made: they would be dropped.
        """
        with self._database.transaction(write=True) as cursor:
            there = self._database.tables(cursor)
        taken = [name for name in self._live.values() if name in there]
        if taken and self._live[MANIFEST] not in there:
            raise StoreError(
                f'"{self._database.address.shown}": the table "{taken[0]}" is there and was not written by nightprice '
                f'(there is no "{self._live[MANIFEST]}"). Write to another table, or drop that one.'
            )
        self.create(REJECTED, REJECTED_SCHEMA)

    def create(self, part: str, schema: pa.Schema) -> None:
        """Make a part's staging table, unless another task did."""
        table = self._staged[part]
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, table)
            if table in self._database.tables(cursor):
                return
            empty = _plain(schema.empty_table()).append_column(TASK, pa.array([], pa.string()))
            self._database.ingest(cursor, table, self._database.storable(empty), "create")
            # A task that runs again finds what its first try left.
            index = quoted(f"{_name(table)}{TASK}")
            cursor.execute(f"CREATE INDEX {index} ON {self._database.quoted(table)} ({TASK})")

    def write(self, part: str, rows: pa.Table, task: str) -> tuple[str, int]:
        """Store the rows of one task, in the place of what an earlier try of the same task stored."""
        table = self._staged[part]
        stored = self._database.storable(_plain(rows)).append_column(TASK, pa.repeat(task, len(rows)))
        with self._database.transaction(write=True) as cursor:
            # A try that was thought dead may still be writing.
            self._database.lock(cursor, f"{table} {task}")
            cursor.execute(f"DELETE FROM {self._database.quoted(table)} WHERE {TASK} = '{task}'")
            self._database.ingest(cursor, table, stored, "append")
        return task, len(rows)

    def reconcile(self, rows: dict[str, int]) -> None:
        """Raise StoreError unless the staging tables hold exactly the rows that the tasks wrote."""
        with self._database.transaction() as cursor:
            there = self._database.tables(cursor)
            for part, expected in rows.items():
                table = self._database.quoted(self._staged[part])
                ((found,),) = cursor.execute(f"SELECT count(*) FROM {table}").fetchall() if self._staged[part] in there else ((0,),)
                if found != expected:
                    raise StoreError(
                        f'"{self.shown(part)}" holds {found:,} rows, but {expected:,} were written. Nothing was published: run it again.'
                    )

    def publish(self, manifest: Manifest) -> None:
        """Swap the staging tables with the live ones and write the manifest: readers see all of it or nothing."""
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, self._live[ACCEPTED])
            if self._staged[ACCEPTED] not in self._database.tables(cursor):
                raise StoreError(f'"{self._database.address.shown}": nothing to publish: the dataset has no rows and no columns.')
            for name in self._live.values():
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(name)}")
            for part, table in self._staged.items():
                self._drop_task(cursor, table)
                live = _name(self._live[part])
                cursor.execute(f"ALTER TABLE {self._database.quoted(table)} RENAME TO {quoted(live)}")
            text = pa.table({MANIFEST: [json.dumps(manifest, ensure_ascii=False)]})
            self._database.ingest(cursor, self._live[MANIFEST], text, "create")
            self._index_id(cursor)

    def _index_id(self, cursor: Any) -> None:
        """Readers divide the accepted rows by their id."""
        table = self._database.quoted(self._live[ACCEPTED])
        if "id" in cursor.execute(f"SELECT * FROM {table} LIMIT 0").fetch_arrow_table().column_names:
            name = f"{_name(self._staged[ACCEPTED])}_id"
            cursor.execute(f"CREATE INDEX {quoted(name)} ON {table} (id)")

    def keep_rejected(self) -> None:
        """Drop the accepted rows, and leave the rejected ones where they are, for a look."""
        self._drop([ACCEPTED])
        with self._database.transaction(write=True) as cursor:
            self._drop_task(cursor, self._staged[REJECTED])
        del self._staged[REJECTED]

    def drop_after(self, error: BaseException) -> None:
        """Drop what is staged; if that fails too, the error says so."""
        try:
            self._drop(list(self._staged))
        except StoreError as failed:
            names = ", ".join(self._staged.values())
            error.add_note(f"The staging tables {names} could not be dropped: {failed}")

    def _drop(self, parts: list[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            for part in parts:
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(self._staged[part])}")

    def _drop_task(self, cursor: Any, table: str) -> None:
        # The index lies in the schema of its table.
        cursor.execute(f"DROP INDEX IF EXISTS {self._database.quoted(f'{table}{TASK}')}")
        cursor.execute(f"ALTER TABLE {self._database.quoted(table)} DROP COLUMN {TASK}")


def _name(table: str) -> str:
    """A table's name without its schema."""
    return table.rpartition(".")[2]


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries as their values: databases have none."""
    fields = [pa.field(item.name, item.type.value_type) if pa.types.is_dictionary(item.type) else item for item in table.schema]
    return table.cast(pa.schema(fields))
