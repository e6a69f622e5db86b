"""What only databases do: ranges of keys, types, staging tables, rights. The rest is in test_store_contract.py."""

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pyarrow as pa
import pytest
from adbc_driver_manager import AdbcStatusCode
from adbc_driver_manager import Error as DriverError

from nightprice.address import parse_address
from nightprice.errors import ContractError
from pipeline.cluster.session import ray_errors
from pipeline.io import ACCEPTED, REJECTED, StoreError, WriteStats, exactly, write
from pipeline.io.sql import store as sql
from pipeline.io.sql.address import sql_address
from pipeline.io.sql.databases import Database, database_of
from pipeline.io.sql.errors import store_errors
from pipeline.io.sql.staging import SqlStaging
from pipeline.manifests import DatasetManifest
from tests.support.postgres_server import Server
from tests.support.stores import rows_at
from transforms.clean import rejected_schema
from transforms.listings import CONTRACT

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": pa.array(["a", None, "c"], pa.string())})


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The beginning of the address of an empty database, up to the table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    server, name = request.getfixturevalue("postgres")
    return str(server.uri(name))


def open_database(uri: str) -> Database:
    return database_of(sql_address(parse_address(uri)))


def manifest(version: str) -> DatasetManifest:
    return cast(DatasetManifest, {"version": version})


def execute(database: str, *statements: str) -> list[Any]:
    with open_database(f"{database}?table=x").transaction(write=True) as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if statements[-1].startswith("SELECT") else []


def conditions(uri: str) -> list[str]:
    found = open_database(uri)
    with found.transaction() as cursor:
        return sql.key_ranges(found, cursor, found.columns(cursor))


# Old ids lie close together, new ones are huge and far apart, some repeat, some are missing.
KEYS = [*range(20), 10**15, 2**60, 2**62, 5, 5, 5, -7, None, None]


@pytest.fixture
def keyed(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sql, "TASK_ROWS", 7)
    values = ", ".join(f"({'NULL' if key is None else key}, 'row {number}')" for number, key in enumerate(KEYS))
    execute(database, "CREATE TABLE keyed (k bigint, name text)", f"INSERT INTO keyed VALUES {values}")
    return database


@pytest.mark.parametrize("suffix", ["?table=keyed&key=k", "?query=SELECT+*+FROM+keyed&key=k"])
@pytest.mark.usefixtures("ray_session")
def test_every_row_lies_in_exactly_one_range(keyed: str, suffix: str) -> None:
    found = conditions(keyed + suffix)
    assert len(found) >= 4
    assert found[-1] == '"k" IS NULL'
    rows = rows_at(keyed + suffix, exactly("k", "name")).take_all()
    assert sorted(row["name"] for row in rows) == sorted(f"row {number}" for number in range(len(KEYS)))
    assert sorted((row["k"] for row in rows), key=str) == sorted(KEYS, key=str)


def test_a_table_of_its_own_key_is_divided_by_it(keyed: str) -> None:
    execute(keyed, "CREATE INDEX by_k ON keyed (k)")
    assert len(conditions(f"{keyed}?table=keyed")) >= 4


def test_without_a_key_one_task_reads_and_says_so(keyed: str, caplog: pytest.LogCaptureFixture) -> None:
    execute(keyed, "CREATE VIEW seen AS SELECT * FROM keyed")
    with caplog.at_level(logging.WARNING):
        assert conditions(f"{keyed}?table=seen") == ["1 = 1"]
    assert "one task reads them" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_a_key_must_be_a_column_of_integers(keyed: str) -> None:
    with pytest.raises(ContractError, match=r'no such column. Did you mean "name"\?'):
        conditions(f"{keyed}?table=keyed&key=nam")
    with pytest.raises(StoreError, match="must be a column of integers, but this one is string"):
        conditions(f"{keyed}?table=keyed&key=name")


def test_a_missing_table_is_named_with_the_closest(keyed: str) -> None:
    with pytest.raises(StoreError, match=r'there is no table "keyd". Did you mean "keyed"\?') as caught:
        conditions(f"{keyed}?table=keyd")
    assert "s3cr3t" not in str(caught.value)


def test_a_database_in_wal_mode_that_can_not_be_written_says_so() -> None:
    address = sql_address(parse_address("sqlite:////read-only/x.db?table=rows"))

    with pytest.raises(StoreError, match=r"If it is in WAL mode, .*journal_mode=DELETE"), store_errors(address):
        raise DriverError(
            "INTERNAL: [SQLite] Failed to prepare query: unable to open database file",
            status_code=AdbcStatusCode.INTERNAL,
        )


def test_a_wrong_query_is_one_sentence(database: str) -> None:
    execute(database, "CREATE TABLE t (a int)")
    with pytest.raises(StoreError, match="nowhere") as caught:
        conditions(f"{database}?query=SELECT+*+FROM+nowhere")
    assert "\n" not in str(caught.value)


def test_a_source_changes_nothing(database: str) -> None:
    execute(database, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with pytest.raises(StoreError):
        conditions(f"{database}?query=DELETE+FROM+t+RETURNING+a")
    assert execute(database, "SELECT count(*) FROM t") == [(1,)]


def test_a_function_in_a_query_changes_nothing(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    server.run(
        name,
        "CREATE TABLE t (a int)",
        "CREATE FUNCTION add_one() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a'",
    )
    with pytest.raises(StoreError, match="read-only transaction"):
        conditions(f"{server.uri(name)}?query=SELECT+add_one()+AS+a&key=a")


@pytest.mark.usefixtures("ray_session")
def test_types_of_postgresql_that_arrow_lacks_come_as_text(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    server.run(
        name,
        "CREATE TYPE room AS ENUM ('Private room')",
        "CREATE TABLE t (price numeric(10, 2), amenities jsonb, room room, seen timestamp, list text[], money money)",
        """INSERT INTO t VALUES
           (1234.50, '["TV", "é"]', 'Private room', '2021-12-04 10:00', ARRAY['TV', 'a "b"'], '$1,234.00')""",
    )
    columns = ("price", "amenities", "room", "seen", "list", "money")
    (row,) = rows_at(f"{server.uri(name)}?table=public.t", exactly(*columns)).take_all()
    assert tuple(row[column] for column in columns) == (
        "1234.50", '["TV", "é"]', "Private room", "2021-12-04 10:00:00", '["TV", "a \\"b\\""]', "$1,234.00",
    )  # fmt: skip


@pytest.mark.usefixtures("ray_session")
def test_columns_of_sqlite_that_begin_with_nulls_keep_their_type(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, price TEXT, latitude REAL, dec DECIMAL(10, 2))")
        connection.executemany("INSERT INTO t VALUES (?, NULL, NULL, NULL)", [(n,) for n in range(20_000)])
        connection.execute("INSERT INTO t VALUES (20000, '$1,234.00', 40.123456789012345, 12.5)")
    connection.close()
    rows = rows_at(f"sqlite:///{tmp_path}/a.db?table=t", exactly("price", "latitude", "dec")).take_all()
    assert len(rows) == 20_001
    assert [tuple(row.values())[:3] for row in rows if row["price"]] == [("$1,234.00", 40.123456789012345, "12.5")]


@pytest.mark.usefixtures("ray_session")
def test_a_number_of_sqlite_that_is_none_says_how_to_read_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (price REAL)")
        connection.execute("INSERT INTO t VALUES ('n/a')")
    connection.close()
    with pytest.raises(StoreError, match="Read it as text"), ray_errors():
        rows_at(f"sqlite:///{tmp_path}/a.db?table=t", exactly("price")).take_all()
    query = quote("SELECT CAST(price AS TEXT) AS price FROM t")
    assert rows_at(f"sqlite:///{tmp_path}/a.db?query={query}", exactly("price")).take_all()[0]["price"] == "n/a"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("These are not the rows you are looking for. " * 50)
    with pytest.raises(StoreError, match=r"file is not a database\. Check that the file is SQLite's"):
        conditions(f"sqlite:///{tmp_path}/a.db?table=t")


# Staging.


@pytest.fixture
def staging(database: str) -> SqlStaging:
    made = SqlStaging(open_database(f"{database}?table=listings"), "20261123T134500Z-1a2b3c", key="id")
    made.start(rejected_schema(CONTRACT))
    made.create(ACCEPTED, ROWS.schema)
    return made


def test_a_task_that_runs_again_replaces_its_rows(staging: SqlStaging, database: str) -> None:
    staging.write(ACCEPTED, ROWS, "000001-0000")
    staging.write(ACCEPTED, ROWS.slice(1), "000001-0001")
    staging.write(ACCEPTED, ROWS.slice(2), "000001-0000")
    staging.reconcile(WriteStats(accepted=3))
    staging.publish(manifest("1"), [])
    assert sorted(execute(database, "SELECT id FROM listings")) == [(2,), (3,), (3,)]


def test_a_try_that_was_thought_dead_is_waited_for(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    database = open_database(f"{server.uri(name)}?table=listings")
    staging = SqlStaging(database, "20261123T134500Z-1a2b3c", key="id")
    staging.start(rejected_schema(CONTRACT))
    staging.create(ACCEPTED, ROWS.schema)
    table = "listings_accepted_1a2b3c"
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(1) as threads:
        with database.transaction(write=True) as first:
            database.lock(first, f"{table} 000001-0000")
            database.ingest(first, table, ROWS.append_column("_task", pa.repeat("000001-0000", 3)), "append")
            second = threads.submit(staging.write, ACCEPTED, ROWS, "000001-0000")
            while not second.done() and server.run(name, waits) == [(0,)]:
                pass
        second.result()
    staging.reconcile(WriteStats(accepted=3))


def test_tasks_at_the_same_time_make_one_table_and_lose_nothing(database: str) -> None:
    made = SqlStaging(open_database(f"{database}?table=listings"), "20261123T134500Z-1a2b3c", key="id")
    made.start(rejected_schema(CONTRACT))

    def task(number: int) -> None:
        made.create(ACCEPTED, ROWS.schema)
        made.write(ACCEPTED, ROWS, f"{number:06d}-0000")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(task, range(16)))
    made.reconcile(WriteStats(accepted=48))


def test_rows_that_got_lost_are_noticed(staging: SqlStaging) -> None:
    staging.write(ACCEPTED, ROWS, "000001-0000")
    with pytest.raises(StoreError, match="holds 3 rows, but 4 were written"):
        staging.reconcile(WriteStats(accepted=4))


def test_readers_see_the_old_version_until_the_new_one_is_whole(staging: SqlStaging, database: str) -> None:
    staging.publish(manifest("1"), [])
    new = SqlStaging(open_database(f"{database}?table=listings"), "20261123T134500Z-4d5e6f", key="id")
    new.start(rejected_schema(CONTRACT))
    new.create(ACCEPTED, ROWS.schema)
    new.write(ACCEPTED, ROWS, "000001-0000")
    assert execute(database, "SELECT count(*) FROM listings") == [(0,)]
    new.publish(manifest("2"), [])
    assert execute(database, "SELECT count(*) FROM listings") == [(3,)]
    assert execute(database, "SELECT manifest FROM listings_manifest") == [('{"version": "2"}',)]


def test_nothing_is_left_beside_the_live_tables(staging: SqlStaging, database: str) -> None:
    staging.publish(manifest("1"), [])
    found = open_database(f"{database}?table=listings")
    with found.transaction() as cursor:
        there = {name.removeprefix("public.") for name in found.tables(cursor)}
    assert there == {"listings", "listings_rejected", "listings_manifest"}
    assert "_task" not in str(execute(database, "SELECT * FROM listings_rejected"))


def test_a_table_of_somebody_else_is_never_replaced(database: str) -> None:
    execute(database, "CREATE TABLE listings (id int)")
    with pytest.raises(StoreError, match="was not written by nightprice"):
        SqlStaging(open_database(f"{database}?table=listings"), "20261123T134500Z-1a2b3c", key="id").start(
            rejected_schema(CONTRACT)
        )


def test_a_name_too_long_for_its_staging_tables(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    with pytest.raises(StoreError, match="too long by 10 bytes"):
        SqlStaging(open_database(f"{server.uri(name)}?table={'x' * 52}"), "20261123T134500Z-1a2b3c", key="id")


def test_no_rights_to_write_is_said_before_anything_is_read(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    nothing: Any = None
    server.run(
        name, f"CREATE ROLE reader_{name} LOGIN PASSWORD 'pw-of-reader'", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    )
    uri = server.uri(name, user=f"reader_{name}", password="pw-of-reader")
    with pytest.raises(StoreError, match=r"permission denied for schema public\. Ask the owner") as caught:
        write(parse_address(f"{uri}?table=listings"), nothing, rejected_schema(CONTRACT), "id").__enter__()
    assert "pw-of-reader" not in str(caught.value)


def test_no_rights_to_read(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    server.run(name, f"CREATE ROLE other_{name} LOGIN PASSWORD 'pw-of-other'", "CREATE TABLE t (a int)")
    with pytest.raises(StoreError, match=r"permission denied for table t\. Ask the owner"):
        conditions(f"{server.uri(name, user=f'other_{name}', password='pw-of-other')}?table=t")


def test_a_schema_of_its_own(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    server.run(name, "CREATE SCHEMA city")
    made = SqlStaging(open_database(f"{server.uri(name)}?table=city.listings"), "20261123T134500Z-1a2b3c", key="id")
    made.start(rejected_schema(CONTRACT))
    made.create(ACCEPTED, ROWS.schema)
    made.write(ACCEPTED, ROWS, "000001-0000")
    made.publish(manifest("1"), [])
    assert server.run(name, "SELECT count(*) FROM city.listings") == [(3,)]


def test_a_character_that_postgresql_refuses_is_replaced(postgres: tuple[Server, str]) -> None:
    server, name = postgres
    made = SqlStaging(open_database(f"{server.uri(name)}?table=listings"), "20261123T134500Z-1a2b3c", key="id")
    made.start(rejected_schema(CONTRACT))
    rows = pa.Table.from_pylist(
        [{"price": "1\x002", "reasons": ["price:unparseable"]}], schema=rejected_schema(CONTRACT)
    )
    made.write(REJECTED, rows, "000001-0000")
    assert server.run(name, "SELECT price, reasons FROM listings_rejected_1a2b3c") == [
        ("1\ufffd2", ["price:unparseable"])
    ]


def test_a_busy_sqlite_file_is_waited_for_then_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.io.sql.databases.SQLITE_WAIT_MS", 50)
    database = open_database(f"sqlite:///{tmp_path}/a.db?table=t")
    with database.transaction(write=True) as holder:
        database.lock(holder, "t")
        with pytest.raises(StoreError, match=r"database is locked\. Another program holds the file"):
            SqlStaging(database, "20261123T134500Z-1a2b3c", key="id").start(rejected_schema(CONTRACT))
