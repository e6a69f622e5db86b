"""Tables of PostgreSQL and SQLite: read by ranges of a key, written to staging tables and swapped in one transaction.

postgresql://user:password@host:5432/database?table=listings
postgresql://user@host/database?query=SELECT+...+WHERE+city+%3D+1&key=id
sqlite:///relative.db?table=listings        sqlite:////absolute/path.db?table=listings
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from nightprice.errors import ContractError, closest
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io.files import new_version
from pipeline.io.sql.databases import Column, Database, open_database, quoted
from pipeline.io.sql.staging import SqlStaging
from pipeline.io.staging import write_staged
from pipeline.io.stores import Columns, Manifest, Seal, StoreError, sink, source
from pipeline.io.table_rows import with_source

logger = logging.getLogger(__name__)

SCHEMES = ("postgresql", "postgres", "sqlite")
TASK_ROWS = 100_000
ALL_ROWS = "1 = 1"


@source(*SCHEMES)
def read_sql(uri: str, columns: Columns) -> ray.data.Dataset:
    """The rows of a table (`?table=`) or query (`?query=`), about TASK_ROWS a task, divided by `?key=` or the table's
    own key.

    The key is an integer column: the primary key, else the first column of an index (PostgreSQL); the rowid (SQLite).
    Without one, one task reads everything. Each range is read in a transaction of its own.
    Lists arrive as JSON text; types that are no number, text or truth value arrive as the database writes them.
    """
    database = open_database(uri)
    with database.transaction() as cursor:
        there = database.columns(cursor)
        chosen = {name: there[name] for name in columns(list(there), database.address.shown)}
        rows = [{"where": where} for where in _ranges(database, cursor, there)]
    read = partial(_read_ranges, database=database, columns=chosen)
    return map_tables(ray.data.from_items(rows, override_num_blocks=len(rows)), read, batch_size=1)


def _ranges(database: Database, cursor: Any, columns: dict[str, Column]) -> list[str]:
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
            database.address.shown,
            rows,
        )
        return [ALL_ROWS]
    numbered = f"SELECT {expression} AS k, row_number() OVER (ORDER BY {expression}) AS n FROM {database.relation()}"
    firsts = f"SELECT DISTINCT k FROM ({numbered} WHERE {expression} IS NOT NULL) AS numbered WHERE n > 1 AND n % {TASK_ROWS} = 1 ORDER BY k"
    bounds = [k for (k,) in cursor.execute(firsts).fetchall()]
    # Open at both ends: a row that arrives meanwhile belongs to some range.
    below = [*(f"{expression} < {bound}" for bound in bounds), None]
    above = [None, *(f"{expression} >= {bound}" for bound in bounds)]
    ranges = [
        " AND ".join(filter(None, pair)) or f"{expression} IS NOT NULL" for pair in zip(above, below, strict=True)
    ]
    return [*ranges, f"{expression} IS NULL"] if keyed[0] < rows else ranges


def _key(database: Database, cursor: Any, columns: dict[str, Column]) -> str | None:
    """The key to divide by: the one that the address names, else the table's own."""
    named = database.address.key
    if named is None:
        return database.key(cursor, columns)
    where = f'"{database.address.shown}": key={named}'
    if named not in columns:
        raise ContractError(f"{where}: no such column.{closest(named, columns)} Columns there: {', '.join(columns)}.")
    if not pa.types.is_integer(columns[named].type):
        raise StoreError(
            f"{where}: a key must be a column of integers, but this one is {columns[named].type}. Name another, "
            "or none."
        )
    return named


def _read_ranges(ranges: pa.Table, database: Database, columns: dict[str, Column]) -> Iterator[pa.Table]:
    where = database.address.shown
    for condition in ranges["where"].to_pylist():
        with database.transaction() as cursor:
            for table in database.batches(cursor, columns, condition):
                yield with_source(table, where)


@sink(*SCHEMES)
def write_sql(dataset: ray.data.Dataset, uri: str, seal: Seal) -> Manifest:
    """Write both parts to staging tables, then make them TABLE, TABLE_rejected and TABLE_manifest in one
    transaction.
    """
    return write_staged(dataset, SqlStaging(open_database(uri), new_version()), seal)
