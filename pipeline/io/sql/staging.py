"""Staging tables of PostgreSQL and SQLite: a column holds the task of each row; they become the live ones by their
name.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.io.sql.databases import Database, quoted
from pipeline.io.staging import MANIFEST, Staging
from pipeline.io.stores import Manifest, StoreError
from pipeline.io.tagged_blocks import ACCEPTED

TASK = "_task"


class SqlStaging(Staging):
    """A task that runs again replaces what its first try stored, so the tables hold what counts and nothing else."""

    def __init__(self, database: Database, version: str) -> None:
        super().__init__(database.address, version)
        self._database = database
        longest = max(len(f"{_name(name)}{TASK}".encode()) for name in self.staged.values())
        if longest > database.longest_name:
            raise StoreError(
                f'"{database.address.shown}": the name of the table is too long by '
                f"{longest - database.longest_name} bytes: "
                "the staging tables add to it. Take a shorter one."
            )

    def tables(self) -> set[str]:
        with self._database.transaction(write=True) as cursor:
            return self._database.tables(cursor)

    def create(self, part: str, schema: pa.Schema) -> None:
        table = self.staged[part]
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, table)
            if table in self._database.tables(cursor):
                return
            empty = _plain(schema.empty_table()).append_column(TASK, pa.array([], pa.string()))
            self._database.ingest(cursor, table, self._database.storable(empty), "create")
            # A task that runs again finds what its first try left.
            index = quoted(f"{_name(table)}{TASK}")
            cursor.execute(f"CREATE INDEX {index} ON {self._database.quoted(table)} ({TASK})")

    def write(self, part: str, rows: pa.Table, task: str) -> str:
        """Store the rows of one task, in the place of what an earlier try of the same task stored."""
        table = self.staged[part]
        stored = self._database.storable(_plain(rows)).append_column(TASK, pa.repeat(task, len(rows)))
        with self._database.transaction(write=True) as cursor:
            # A try that was thought dead may still be writing.
            self._database.lock(cursor, f"{table} {task}")
            cursor.execute(f"DELETE FROM {self._database.quoted(table)} WHERE {TASK} = '{task}'")
            self._database.ingest(cursor, table, stored, "append")
        return task

    def count(self, part: str, written: Sequence[str]) -> int:
        with self._database.transaction() as cursor:
            ((found,),) = cursor.execute(f"SELECT count(*) FROM {self._database.quoted(self.staged[part])}").fetchall()
        return int(found)

    def publish(self, manifest: Manifest, written: Sequence[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            self._database.lock(cursor, self.live[ACCEPTED])
            if self.staged[ACCEPTED] not in self._database.tables(cursor):
                raise StoreError(
                    f'"{self._address.shown}": nothing to publish: the dataset has no rows and no columns.'
                )
            for name in self.live.values():
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(name)}")
            for part, table in self.staged.items():
                self._drop_task(cursor, table)
                live = _name(self.live[part])
                cursor.execute(f"ALTER TABLE {self._database.quoted(table)} RENAME TO {quoted(live)}")
            text = pa.table({MANIFEST: [json.dumps(manifest, ensure_ascii=False)]})
            self._database.ingest(cursor, self.live[MANIFEST], text, "create")
            self._index_id(cursor)

    def _index_id(self, cursor: Any) -> None:
        """Readers divide the accepted rows by their id."""
        table = self._database.quoted(self.live[ACCEPTED])
        if "id" in cursor.execute(f"SELECT * FROM {table} LIMIT 0").fetch_arrow_table().column_names:
            name = f"{_name(self.staged[ACCEPTED])}_id"
            cursor.execute(f"CREATE INDEX {quoted(name)} ON {table} (id)")

    def bare(self, part: str, written: Sequence[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            self._drop_task(cursor, self.staged[part])

    def drop(self, tables: Iterable[str]) -> None:
        with self._database.transaction(write=True) as cursor:
            for table in tables:
                cursor.execute(f"DROP TABLE IF EXISTS {self._database.quoted(table)}")

    def _drop_task(self, cursor: Any, table: str) -> None:
        # The index lies in the schema of its table.
        cursor.execute(f"DROP INDEX IF EXISTS {self._database.quoted(f'{table}{TASK}')}")
        cursor.execute(f"ALTER TABLE {self._database.quoted(table)} DROP COLUMN {TASK}")


def _name(table: str) -> str:
    """A table's name without its schema."""
    return table.rpartition(".")[2]


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries as their values: databases have none."""
    fields = [
        pa.field(item.name, item.type.value_type) if pa.types.is_dictionary(item.type) else item
        for item in table.schema
    ]
    return table.cast(pa.schema(fields))
