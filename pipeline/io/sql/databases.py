"""What PostgreSQL and SQLite do differently, under one shape: connect, list columns and keys, stage and publish
tables.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote as percent_encoded

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.io.sql.address import SqlAddress
from pipeline.io.sql.errors import store_errors
from pipeline.io.stores import StoreError
from pipeline.io.table_rows import lists_as_json, missing_table

SQLITE_WAIT_MS = 120_000
SQLITE_BATCH_ROWS = 16_384

POSTGRES_TABLES = r"""
SELECT n.nspname::text, c.relname::text, pg_table_is_visible(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
"""
# The integer column that begins the primary key, else another index of all rows.
POSTGRES_KEY = """
SELECT a.attname::text
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = $1::text::regclass AND i.indpred IS NULL
  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
ORDER BY i.indisprimary DESC, a.attnum LIMIT 1
"""


@dataclass(frozen=True)
class Column:
    """A column to read: the expression that reads it, and the type it arrives in."""

    expression: str
    type: pa.DataType


class Database(ABC):
    """One database, spoken to through ADBC. Plain and small: it travels to the tasks."""

    driver: ClassVar[str]
    longest_name: ClassVar[int]

    def __init__(self, address: SqlAddress) -> None:
        self.address = address

    @abstractmethod
    def _connect(self, dbapi: Any, write: bool) -> Any: ...

    @contextmanager
    def transaction(self, write: bool = False) -> Iterator[Any]:
        """A cursor in a transaction that is committed at the end, or rolled back; what the driver raises becomes
        StoreError.
        """
        dbapi = _driver(self.driver, self.address.display)
        with store_errors(self.address), closing(self._connect(dbapi, write)) as connection:
            with closing(connection.cursor()) as cursor:
                self._begin(cursor, write)
                yield cursor
            connection.commit()

    @abstractmethod
    def _begin(self, cursor: Any, write: bool) -> None: ...

    def quoted(self, table: str) -> str:
        """A table's name for SQL."""
        return quoted(table)

    def relation(self) -> str:
        """What the address names, for a FROM clause."""
        return self.quoted(self.address.table) if self.address.table else f"({self.address.query}) AS source"

    @abstractmethod
    def tables(self, cursor: Any) -> set[str]:
        """The names of the tables of the database."""

    @abstractmethod
    def columns(self, cursor: Any) -> dict[str, Column]:
        """The columns of the table or query."""

    @abstractmethod
    def key(self, cursor: Any, columns: dict[str, Column]) -> str | None:
        """An integer column by which ranges of rows can be read without reading everything, or None."""

    @abstractmethod
    def batches(self, cursor: Any, columns: dict[str, Column], where: str) -> Iterator[pa.Table]:
        """The rows of the table or query, a batch at a time."""

    @abstractmethod
    def lock(self, cursor: Any, name: str) -> None:
        """Wait until no other transaction holds `name`, and hold it to the end of this one."""

    @abstractmethod
    def storable(self, table: pa.Table) -> pa.Table:
        """A table in types that the database can take."""

    def ingest(self, cursor: Any, table: str, rows: pa.Table, mode: str) -> None:
        """Create a table for `rows` ("create") or append them ("append")."""
        cursor.adbc_ingest(table, rows, mode=mode)

    def missing_table(self, cursor: Any) -> StoreError | None:
        """The error to raise if the table of the address does not exist."""
        table, existing = self.address.table, self.tables(cursor)
        if table is None or table in existing:
            return None
        return missing_table(self.address.display, table, existing)


class Postgres(Database):
    """PostgreSQL through libpq: its parameters, $PGPASSWORD and ~/.pgpass work as usual."""

    driver = "adbc_driver_postgresql"
    longest_name = 63

    def _connect(self, dbapi: Any, write: bool) -> Any:
        return dbapi.connect(self.address.connection)

    def _begin(self, cursor: Any, write: bool) -> None:
        if not write:
            cursor.execute("SET TRANSACTION READ ONLY")

    def quoted(self, table: str) -> str:
        return ".".join(quoted(part) for part in table.split(".", 1))

    def tables(self, cursor: Any) -> set[str]:
        tables = cursor.execute(POSTGRES_TABLES).fetchall()
        return {f"{schema}.{name}" for schema, name, _ in tables} | {name for _, name, visible in tables if visible}

    def columns(self, cursor: Any) -> dict[str, Column]:
        if error := self.missing_table(cursor):
            raise error
        schema = cursor.adbc_execute_schema(f"SELECT * FROM {self.relation()}")
        return {item.name: _postgres_column(item) for item in schema}

    def key(self, cursor: Any, columns: dict[str, Column]) -> str | None:
        if self.address.table is None:
            return None
        row = cursor.execute(POSTGRES_KEY, (self.quoted(self.address.table),)).fetchone()
        return str(row[0]) if row else None

    def batches(self, cursor: Any, columns: dict[str, Column], where: str) -> Iterator[pa.Table]:
        expressions = ", ".join(f"{column.expression} AS {quoted(name)}" for name, column in columns.items())
        cursor.execute(f"SELECT {expressions} FROM {self.relation()} WHERE {where}")
        schema = pa.schema([(name, column.type) for name, column in columns.items()])
        for batch in _batches(cursor):
            yield pa.table(dict(zip(schema.names, batch.columns, strict=True))).cast(schema)

    def lock(self, cursor: Any, name: str) -> None:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", (name,)).fetchall()

    def storable(self, table: pa.Table) -> pa.Table:
        """Text without the character NUL, which PostgreSQL refuses: the replacement character stands for it."""
        for position, item in enumerate(table.schema):
            if pa.types.is_string(item.type):
                table = table.set_column(position, item.name, pc.replace_substring(table[position], "\x00", "\ufffd"))
        return table

    def ingest(self, cursor: Any, table: str, rows: pa.Table, mode: str) -> None:
        schema, _, name = table.rpartition(".")
        cursor.adbc_ingest(name, rows, mode=mode, db_schema_name=schema or None)


class SQLite(Database):
    """A SQLite file. One transaction writes at a time; the others wait for it."""

    driver = "adbc_driver_sqlite"
    longest_name = 255
    QUERY = "nightprice_query"

    def _connect(self, dbapi: Any, write: bool) -> Any:
        # Without a mode SQLite makes an empty file of any name that does not exist.
        mode = "rwc" if write else "ro"
        path = Path(self.address.connection)
        if not write and not path.is_file():
            raise StoreError(
                f'"{self.address.display}": there is no file "{path}". An absolute path begins with four '
                "slashes: sqlite:////folder/file.db."
            )
        return dbapi.connect(f"file:{percent_encoded(self.address.connection)}?mode={mode}")

    def _begin(self, cursor: Any, write: bool) -> None:
        cursor.execute(f"PRAGMA busy_timeout = {SQLITE_WAIT_MS}").fetchall()
        if self.address.query and not write:
            # SQLite tells the declared types of a view's columns, but not of a query's.
            cursor.execute(f"CREATE TEMP VIEW {self.QUERY} AS {self.address.query}")

    def relation(self) -> str:
        return self.quoted(self.address.table) if self.address.table else self.QUERY

    def tables(self, cursor: Any) -> set[str]:
        return {
            name
            for (name,) in cursor.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        }

    def columns(self, cursor: Any) -> dict[str, Column]:
        if error := self.missing_table(cursor):
            raise error
        columns = cursor.execute(f"PRAGMA table_info({self.relation()})").fetchall()
        return {name: _sqlite_column(name, declared) for _, name, declared, *_ in columns}

    def key(self, cursor: Any, columns: dict[str, Column]) -> str | None:
        if self.address.table is None or "rowid" in columns:
            return None
        ((_, _, kind, _, without_rowid, *_),) = cursor.execute(f"PRAGMA table_list({self.relation()})").fetchall()
        return "rowid" if kind == "table" and not without_rowid else None

    def batches(self, cursor: Any, columns: dict[str, Column], where: str) -> Iterator[pa.Table]:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(SQLITE_BATCH_ROWS)})
        cursor.execute(_typed_select(columns, self.relation(), where))
        schema = pa.schema([(name, column.type) for name, column in columns.items()])
        for batch in _batches(cursor):
            rows = batch.filter(pc.equal(batch.column(0), 1)).columns[1:]
            with _declared(self.address):
                yield pa.table(dict(zip(schema.names, rows, strict=True))).cast(schema)

    def lock(self, cursor: Any, name: str) -> None:
        # A transaction that reads before it writes is refused at once when another one writes: take the write
        # lock first.
        cursor.execute("COMMIT")
        cursor.execute("BEGIN IMMEDIATE")

    def storable(self, table: pa.Table) -> pa.Table:
        return lists_as_json(table)


def database_of(address: SqlAddress) -> Database:
    """The database of an address, by its scheme."""
    return SQLite(address) if address.address.scheme == "sqlite" else Postgres(address)


def quoted(name: str) -> str:
    """A name for SQL, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _driver(module: str, display: str) -> Any:
    try:
        return importlib.import_module(f"{module}.dbapi")
    except ImportError as error:
        raise StoreError(f'"{display}" needs the extra "sql". Install it: pip install "nightprice[sql]".') from error


def _batches(cursor: Any) -> Iterator[pa.RecordBatch]:
    reader = cursor.fetch_record_batch()
    empty = True
    for batch in reader:
        empty = False
        yield batch
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=reader.schema)


def _postgres_column(item: pa.Field) -> Column:
    """Numbers, texts, truth values and lists of them as they are; all else (numeric, json, dates, enums, …) as its
    text.
    """
    inner = item.type.value_type if pa.types.is_list(item.type) else item.type
    simple = any(
        check(inner) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    )
    # Money arrives as an integer count of cents, which nothing tells from a number.
    if simple and (item.metadata or {}).get(b"POSTGRESQL:type") != b"money":
        return Column(quoted(item.name), pa.list_(inner) if pa.types.is_list(item.type) else inner)
    return Column(f"{quoted(item.name)}::text", pa.string())


def _sqlite_column(name: str, declared: str) -> Column:
    """By the rules of column affinity (sqlite.org/datatype3.html); what is neither INTEGER nor REAL is read as text."""
    kind = declared.upper()
    if "INT" in kind:
        return Column(quoted(name), pa.int64())
    if (
        "CHAR" not in kind
        and "CLOB" not in kind
        and "TEXT" not in kind
        and any(word in kind for word in ("REAL", "FLOA", "DOUB"))
    ):
        return Column(quoted(name), pa.float64())
    return Column(f"CAST({quoted(name)} AS TEXT)", pa.string())


def _typed_select(columns: dict[str, Column], relation: str, where: str) -> str:
    """A query whose first row, marked by 0, gives the types: the driver takes them from the first rows, which may
    be null.
    """
    examples = {pa.int64(): "0", pa.float64(): "0.5", pa.string(): "''"}
    first = ", ".join(["0", *(examples[column.type] for column in columns.values())])
    rest = ", ".join(["1", *(column.expression for column in columns.values())])
    return f"SELECT {first} UNION ALL SELECT {rest} FROM {relation} WHERE {where}"


@contextmanager
def _declared(address: SqlAddress) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise StoreError(
            f'"{address.display}": a column declared as a number holds something else ({error}). '
            "Read it as text: ?query=SELECT CAST(column AS TEXT) AS column, … FROM table (URL-encoded)."
        ) from error
