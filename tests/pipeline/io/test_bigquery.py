"""What only BigQuery does. The rest is in test_store_contract.py; what answers is tests/support/bigquery_server.py."""

from typing import Any, cast
from urllib.parse import quote_plus

import pyarrow as pa
import pytest

from nightprice.address import parse_address
from nightprice.errors import ContractError
from pipeline.io import ACCEPTED, StoreError, WriteStats, exactly, write
from pipeline.io.bigquery.client import BigQueryAddress, bigquery_address, fields_of
from pipeline.io.bigquery.staging import BigQueryStaging
from pipeline.manifests import DatasetManifest
from tests.support.bigquery_server import PROJECT, Warehouse
from tests.support.stores import rows_at
from transforms.clean import rejected_schema
from transforms.listings import CONTRACT

Dataset = tuple[Warehouse, str]
ROWS = pa.table({"id": pa.array([1, 2**53 + 1, None], pa.int64()), "name": ["a", None, "c"]})
VERSION = "20261123T134500Z-1a2b3c"


pytestmark = pytest.mark.usefixtures("ray_session")


def parse(uri: str) -> BigQueryAddress:
    return bigquery_address(parse_address(uri))


def manifest(version: str) -> DatasetManifest:
    return cast(DatasetManifest, {"version": version})


@pytest.fixture
def staging(bigquery: Dataset) -> BigQueryStaging:
    made = BigQueryStaging(parse(f"bigquery://{PROJECT}/{bigquery[1]}.listings"), VERSION)
    made.start(rejected_schema(CONTRACT))
    made.create(ACCEPTED, ROWS.schema)
    return made


def rows_of(warehouse: Warehouse, dataset: str, table: str) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = warehouse.sql.execute(f"SELECT * FROM `{PROJECT}.{dataset}.{table}`").fetchall()
    return found


def test_of_a_task_that_runs_again_only_the_last_attempt_counts(bigquery: Dataset, staging: BigQueryStaging) -> None:
    warehouse, dataset = bigquery
    staging.write(ACCEPTED, ROWS, "000001-0000")
    written = [staging.write(ACCEPTED, ROWS.slice(1), "000001-0000")]
    assert len(rows_of(warehouse, dataset, "listings_accepted_1a2b3c")) == 5
    staging.reconcile(WriteStats(accepted=2, written=written))
    staging.publish(manifest("1"), written)
    assert rows_of(warehouse, dataset, "listings") == [(2**53 + 1, None), (None, "c")]


def test_rows_that_are_there_twice_under_one_name_are_noticed(bigquery: Dataset, staging: BigQueryStaging) -> None:
    """Ray runs a load again when the worker that waits for it dies."""
    warehouse, dataset = bigquery
    written = [staging.write(ACCEPTED, ROWS, "000001-0000")]
    table = f"`{PROJECT}.{dataset}.listings_accepted_1a2b3c`"
    warehouse.sql.execute(f"INSERT INTO {table} SELECT * FROM {table}")
    with pytest.raises(StoreError, match="holds 6 rows, but 3 were written"):
        staging.reconcile(WriteStats(accepted=3, written=written))


def test_rows_that_got_lost_are_noticed(staging: BigQueryStaging) -> None:
    with pytest.raises(StoreError, match="holds 0 rows, but 1 were written"):
        staging.reconcile(WriteStats(accepted=1))


def test_the_transaction_is_all_or_nothing(bigquery: Dataset, staging: BigQueryStaging) -> None:
    warehouse, dataset = bigquery
    staging.publish(manifest("1"), [staging.write(ACCEPTED, ROWS, "000001-0000")])
    other = BigQueryStaging(parse(f"bigquery://{PROJECT}/{dataset}.listings"), "20261123T134500Z-4d5e6f")
    other.start(rejected_schema(CONTRACT))
    other.create(ACCEPTED, pa.schema([("id", pa.int64()), ("new", pa.string())]))
    with pytest.raises(StoreError, match="no column named new"):
        other.publish(manifest("2"), [])
    assert rows_of(warehouse, dataset, "listings_manifest") == [('{"version": "1"}',)]
    assert len(rows_of(warehouse, dataset, "listings")) == 3


def test_nothing_is_left_beside_the_live_tables(bigquery: Dataset, staging: BigQueryStaging) -> None:
    warehouse, dataset = bigquery
    staging.publish(manifest("1"), [])
    staging.clean()
    there = {name.rpartition(".")[2] for name in warehouse.schemas if name.split(".")[1] == dataset}
    assert there == {"listings", "listings_rejected", "listings_manifest"}


def test_a_load_that_is_refused_is_one_sentence(bigquery: Dataset, staging: BigQueryStaging) -> None:
    staging.drop([staging.staged[ACCEPTED]])
    with pytest.raises(
        StoreError, match=r"^\"bigquery://[^\n]*Not found: Table [^\n]*Check project, dataset and table[^\n]*$"
    ):
        staging.write(ACCEPTED, ROWS, "000001-0000")


def test_lists_come_as_json(bigquery: Dataset) -> None:
    warehouse, dataset = bigquery
    warehouse.create(f"{PROJECT}.{dataset}.raw", [{"name": "amenities", "type": "STRING", "mode": "REPEATED"}])
    warehouse.sql.execute(f"""INSERT INTO `{PROJECT}.{dataset}.raw` VALUES ('["TV","Wifi"]')""")
    assert (
        rows_at(f"bigquery://{PROJECT}/{dataset}.raw", exactly("amenities")).take_all()[0]["amenities"]
        == '["TV", "Wifi"]'
    )


def test_a_query_is_run_once_for_the_columns_that_are_read(bigquery: Dataset, staging: BigQueryStaging) -> None:
    warehouse, dataset = bigquery
    staging.publish(manifest("1"), [staging.write(ACCEPTED, ROWS, "000001-0000")])
    warehouse.queries.clear()
    query = f"SELECT *, 1 AS one FROM `{PROJECT}.{dataset}.listings` WHERE id = 1;"
    rows = rows_at(f"bigquery://{PROJECT}?query={quote_plus(query)}", exactly("name"))
    assert [row["name"] for row in rows.take_all() + rows.take_all()] == ["a", "a"]
    assert warehouse.queries == [f"SELECT `name` FROM (\n{query.rstrip(';')}\n)"]


def test_a_table_of_somebody_else_is_never_replaced(bigquery: Dataset) -> None:
    warehouse, dataset = bigquery
    warehouse.create(f"{PROJECT}.{dataset}.listings", [{"name": "id", "type": "INTEGER"}])
    with pytest.raises(StoreError, match="was not written by nightprice"):
        BigQueryStaging(parse(f"bigquery://{PROJECT}/{dataset}.listings"), VERSION).start(rejected_schema(CONTRACT))


def test_no_rights(bigquery: Dataset) -> None:
    warehouse, dataset = bigquery
    warehouse.closed.add(dataset)
    nothing: Any = None
    uri = f"bigquery://{PROJECT}/{dataset}.listings"
    with pytest.raises(StoreError, match=r"Permission denied\. Ask for the roles"):
        rows_at(uri, exactly("id"))
    with pytest.raises(StoreError, match=r"Permission denied\. Ask for the roles"):
        write(parse_address(uri), nothing, rejected_schema(CONTRACT), "id").__enter__()


def test_a_dataset_that_is_not_there(bigquery_server: Warehouse) -> None:
    with pytest.raises(StoreError, match=r"Not found: Dataset .*nowhere\. Check project, dataset and table"):
        rows_at(f"bigquery://{PROJECT}/nowhere.listings", exactly("id"))


def test_a_missing_table_is_named_with_the_closest(bigquery: Dataset, staging: BigQueryStaging) -> None:
    staging.publish(manifest("1"), [])
    with pytest.raises(StoreError, match=r'no table "listing"\. Did you mean "listings"\?'):
        rows_at(f"bigquery://{PROJECT}/{bigquery[1]}.listing", exactly("id"))


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    with pytest.raises(StoreError, match="gcloud auth application-default login"):
        rows_at(f"bigquery://{PROJECT}/a.b", exactly("id"))


@pytest.mark.parametrize(
    "uri",
    [
        "bigquery://p",
        "bigquery://p/dataset",
        "bigquery:///d.t",
        "bigquery://p/d.t?query=SELECT+1",
        "bigquery://p/d.t.x",
    ],
)
def test_wrong_addresses(uri: str) -> None:
    with pytest.raises(StoreError, match="must name one table or one query"):
        parse(uri)


def test_a_query_is_no_sink() -> None:
    with pytest.raises(StoreError, match="a sink is one table"):
        parse("bigquery://p?query=SELECT+1").writable_table()


def test_a_type_without_a_counterpart() -> None:
    with pytest.raises(ContractError, match='Column "x" of type'):
        fields_of(pa.schema([("x", pa.binary())]))
