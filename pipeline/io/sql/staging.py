"""Staging tables of PostgreSQL and SQLite: a column holds the task of each row; they become the live ones by their
name.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.io.sql.databases import Database, quoted
from pipeline.io.staging import MANIFEST, Staging
from pipeline.io.stores import StoreError
from pipeline.io.tagged_blocks import ACCEPTED
from pipeline.manifests import DatasetManifest

TASK = "_task"


class SqlStaging(Staging):
    """A task that runs again replaces what its first attempt stored: all rows in the tables count."""

    def __init__(self, database: Database, version: str, key: str) -> None:
        super().__init__(database.address, version)
        self._database = database
        self._key = key
        longest = max(len(f"{_name(name)}{TASK}".encode()) for name in self.staged.values())
        if longest > database.longest_name:
            raise StoreError(
                f'"{database.address.display}": the name of the table is too long by '
                f"{longest - database.longest_name} bytes: the staging tables add to it. Take a shorter one."
            )

    def tables(self) -> set[str]:
        with self._database.transaction(write=True) as cursor:
            return self._database.tables(cursor)

    def create(self, kind: str, schema: pa.Schema) -> None:
        table = self.staged[kind]
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, table)
            if table in self._database.tables(cursor):
                return
            empty = _plain(schema.empty_table()).append_column(TASK, pa.array([], pa.string()))
            self._database.ingest(cursor, table, self._database.storable(empty), "create")
            # A task that runs again finds by it what its first attempt left.
            index = quoted(f"{_name(table)}{TASK}")
            cursor.execute(f"CREATE INDEX {index} ON {self._database.quoted(table)} ({TASK})")

    def write(self, kind: str, rows: pa.Table, task: str) -> str:
        """Store the rows of one task, in the place of what an earlier attempt of the same task stored."""
        table = self.staged[kind]
        stored = self._database.storable(_plain(rows)).append_column(TASK, pa.repeat(task, len(rows)))
        with self._database.transaction(write=True) as cursor:
            # An attempt that was thought dead may still be writing.
            self._database.lock(cursor, f"{table} {task}")
            cursor.execute(f"DELETE FROM {self._database.quoted(table)} WHERE {TASK} = '{task}'")
            self._database.ingest(cursor, table, stored, "append")
        return task

    def count(self, kind: str, written: Sequence[str]) -> int:
        with self._database.transaction() as cursor:
            ((rows,),) = cursor.execute(f"SELECT count(*) FROM {self._database.quoted(self.staged[kind])}").fetchall()
        return int(rows)

    def publish(self, manifest: DatasetManifest, written: Sequence[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, self.live[ACCEPTED])
            if self.staged[ACCEPTED] not in self._database.tables(cursor):
                raise StoreError(
                    f'"{self._database.address.display}": nothing to publish: the dataset has no rows and no columns.'
                )
            for name in self.live.values():
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(name)}")
            for kind, table in self.staged.items():
                self._drop_task(cursor, table)
                live = _name(self.live[kind])
                cursor.execute(f"ALTER TABLE {self._database.quoted(table)} RENAME TO {quoted(live)}")
            text = pa.table({MANIFEST: [json.dumps(manifest, ensure_ascii=False)]})
            self._database.ingest(cursor, self.live[MANIFEST], text, "create")
            # Readers divide the accepted rows by their key.
            index = f"{_name(self.staged[ACCEPTED])}_key"
            live = self._database.quoted(self.live[ACCEPTED])
            cursor.execute(f"CREATE INDEX {quoted(index)} ON {live} ({quoted(self._key)})")

    def drop_bookkeeping_column(self, kind: str, written: Sequence[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            self._drop_task(cursor, self.staged[kind])

    def drop(self, tables: Iterable[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            for table in tables:
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(table)}")

    def _drop_task(self, cursor: Any, table: str) -> None:
        # The index is in the schema of its table.
        cursor.execute(f"DROP INDEX IF EXISTS {self._database.quoted(f'{table}{TASK}')}")
        cursor.execute(f"ALTER TABLE {self._database.quoted(table)} DROP COLUMN {TASK}")


def _name(table: str) -> str:
    """A table's name without its schema."""
    return table.rpartition(".")[2]


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries as their values: databases have no such type."""
    fields = [
        pa.field(column.name, column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.schema
    ]
    return table.cast(pa.schema(fields))
