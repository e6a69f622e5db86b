"""Tables of PostgreSQL and SQLite: read by ranges of a key, written to staging tables and swapped in one transaction.

postgresql://user:password@host:5432/database?table=rows
postgresql://user@host/database?query=SELECT+...+WHERE+city+%3D+1&key=id
sqlite:///relative.db?table=rows        sqlite:////absolute/path.db?table=rows
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from nightprice.address import Address
from nightprice.errors import ContractError, closest
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io.sql.address import SqlAddress, sql_address
from pipeline.io.sql.databases import Column, Database, database_of, quoted
from pipeline.io.sql.staging import SqlStaging
from pipeline.io.staging import TableStore
from pipeline.io.stores import Columns, Source, StoreError
from pipeline.io.table_rows import as_raw_rows
from pipeline.versions import new_version

logger = logging.getLogger(__name__)

TASK_ROWS = 100_000
ALL_ROWS = "1 = 1"


class SqlStore(TableStore):
    """Tables, views and queries of PostgreSQL and SQLite."""

    def table_address(self, address: Address) -> SqlAddress:
        return sql_address(address)

    def staging(self, address: Address, key: str) -> SqlStaging:
        return SqlStaging(database_of(sql_address(address)), new_version(), key)

    def read(self, address: Address, columns: Columns) -> Source:
        """The rows of a table (`?table=`) or query (`?query=`), about TASK_ROWS a task, divided by `?key=` or the
        table's own key.

        The key is an integer column: the primary key, else the first column of an index (PostgreSQL); the rowid
        (SQLite). Without one, one task reads everything. Each range is read in a transaction of its own. Lists arrive
        as JSON text; types other than number, text and truth value arrive as the database writes them.
        """
        database = database_of(sql_address(address))
        with database.transaction() as cursor:
            available = database.columns(cursor)
            chosen = {name: available[name] for name in columns(list(available), address.display)}
            ranges = [{"where": where} for where in key_ranges(database, cursor, available)]
        read = partial(_read_ranges, database=database, columns=chosen)
        rows = map_tables(ray.data.from_items(ranges, override_num_blocks=len(ranges)), read, batch_size=1)
        return Source(rows, [{"path": address.display}], tasks=len(ranges))


def key_ranges(database: Database, cursor: Any, columns: dict[str, Column]) -> list[str]:
    """The conditions that divide the rows; every row meets exactly one."""
    key = _key(database, cursor, columns)
    expression = quoted(key) if key in columns else key
    counted = f", count({expression})" if key else ""
    rows, *keyed = cursor.execute(f"SELECT count(*){counted} FROM {database.relation()}").fetchone()
    if rows <= TASK_ROWS:
        return [ALL_ROWS]
    if not key:
        logger.warning(
            '"%s": no integer key to divide its %s rows by, so one task reads them. Name one: &key=COLUMN',
            database.address.display,
            rows,
        )
        return [ALL_ROWS]
    ranges = _between(str(expression), _bounds(database, cursor, str(expression)))
    return [*ranges, f"{expression} IS NULL"] if keyed[0] < rows else ranges


def _bounds(database: Database, cursor: Any, key: str) -> list[Any]:
    """The keys at which a new range begins, ascending: every TASK_ROWS-th of the rows."""
    numbered = f"SELECT {key} AS k, row_number() OVER (ORDER BY {key}) AS n FROM {database.relation()}"
    first_keys = (
        f"SELECT DISTINCT k FROM ({numbered} WHERE {key} IS NOT NULL) AS numbered "
        f"WHERE n > 1 AND n % {TASK_ROWS} = 1 ORDER BY k"
    )
    return [k for (k,) in cursor.execute(first_keys).fetchall()]


def _between(key: str, bounds: list[Any]) -> list[str]:
    """The conditions of the ranges between bounds, open at both ends: a row that arrives meanwhile belongs to one.

    >>> _between("id", [10, 20])
    ['id < 10', 'id >= 10 AND id < 20', 'id >= 20']
    """
    below = [*(f"{key} < {bound}" for bound in bounds), None]
    above = [None, *(f"{key} >= {bound}" for bound in bounds)]
    return [" AND ".join(filter(None, pair)) or f"{key} IS NOT NULL" for pair in zip(above, below, strict=True)]


def _key(database: Database, cursor: Any, columns: dict[str, Column]) -> str | None:
    """The key to divide by: the one that the address names, else the table's own."""
    named = database.address.key
    if named is None:
        return database.key(cursor, columns)
    where = f'"{database.address.display}": key={named}'
    if named not in columns:
        raise ContractError(
            f"{where}: no such column.{closest(named, columns)} Available columns: {', '.join(columns)}."
        )
    if not pa.types.is_integer(columns[named].type):
        raise StoreError(
            f"{where}: a key must be a column of integers, but this one is {columns[named].type}. Name another, "
            "or none."
        )
    return named


def _read_ranges(ranges: pa.Table, database: Database, columns: dict[str, Column]) -> Iterator[pa.Table]:
    for condition in ranges["where"].to_pylist():
        with database.transaction() as cursor:
            for table in database.batches(cursor, columns, condition):
                yield as_raw_rows(table, database.address.display)
