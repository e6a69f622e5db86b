"""What only BigQuery does. The rest is in test_store_contract.py; what answers is tests/bigquery_rig.py."""

import uuid
from urllib.parse import quote_plus

import pyarrow as pa
import pytest

from pipeline.io import base, exactly
from pipeline.io.base import StoreError
from pipeline.io.bigquery import _Staging, read_bigquery
from pipeline.io.bigquery_client import fields_of, parse
from pipeline.io.parts import ACCEPTED, REJECTED
from tests.bigquery_rig import PROJECT, Warehouse
from transforms.errors import ContractError

Dataset = tuple[Warehouse, str]
ROWS = pa.table({"id": pa.array([1, 2**53 + 1, None], pa.int64()), "name": ["a", None, "c"], "list": [["x", "y"], [], ["z"]]})


@pytest.fixture
def staging(bigquery: Dataset) -> _Staging:
    # Jobs are known to the whole project by their version.
    made = _Staging(parse(f"bigquery://{PROJECT}/{bigquery[1]}.listings"), f"20261123T134500Z-{uuid.uuid4().hex[:6]}")
    made.start()
    made.create(ACCEPTED, ROWS.schema)
    return made


def rows_of(warehouse: Warehouse, dataset: str, table: str) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = warehouse.sql.execute(f"SELECT * FROM `{PROJECT}.{dataset}.{table}`").fetchall()
    return found


def test_a_task_that_runs_again_loads_nothing_twice(staging: _Staging) -> None:
    staging.write(ACCEPTED, ROWS, "000001-0000")
    staging.write(ACCEPTED, ROWS, "000001-0000")
    staging.reconcile({ACCEPTED: 3, REJECTED: 0})


def test_rows_that_got_lost_are_noticed(staging: _Staging) -> None:
    with pytest.raises(StoreError, match="holds 0 rows, but 1 were written"):
        staging.reconcile({ACCEPTED: 1, REJECTED: 0})


def test_the_transaction_is_all_or_nothing(bigquery: Dataset, staging: _Staging) -> None:
    warehouse, dataset = bigquery
    staging.write(ACCEPTED, ROWS, "000001-0000")
    staging.publish({"version": "1"})
    other = _Staging(parse(f"bigquery://{PROJECT}/{dataset}.listings"), "20261123T134500Z-4d5e6f")
    other.start()
    other.create(ACCEPTED, pa.schema([("id", pa.int64()), ("new", pa.string())]))
    with pytest.raises(Exception, match="no column named new"):
        other.publish({"version": "2"})
    assert rows_of(warehouse, dataset, "listings_manifest") == [('{"version": "1"}',)]
    assert len(rows_of(warehouse, dataset, "listings")) == 3


def test_nothing_is_left_beside_the_live_tables(bigquery: Dataset, staging: _Staging) -> None:
    warehouse, dataset = bigquery
    staging.publish({"version": "1"})
    staging.drop()
    there = {name.rpartition(".")[2] for name in warehouse.schemas if name.split(".")[1] == dataset}
    assert there == {"listings", "listings_rejected", "listings_manifest"}


@pytest.mark.usefixtures("ray_session")
def test_a_query_and_lists(bigquery: Dataset, staging: _Staging) -> None:
    _, dataset = bigquery
    staging.write(ACCEPTED, ROWS, "000001-0000")
    staging.publish({"version": "1"})
    rows = base.read(f"bigquery://{PROJECT}/{dataset}.listings", exactly("id", "list")).take_all()
    assert {row["id"]: row["list"] for row in rows} == {1: '["x", "y"]', 2**53 + 1: "[]", None: '["z"]'}
    query = quote_plus(f"SELECT name FROM `{PROJECT}.{dataset}.listings` WHERE id = 1")
    assert [row["name"] for row in base.read(f"bigquery://{PROJECT}?query={query}", exactly("name")).take_all()] == ["a"]


def test_a_table_of_somebody_else_is_never_replaced(bigquery: Dataset) -> None:
    warehouse, dataset = bigquery
    warehouse.create(f"{PROJECT}.{dataset}.listings", [{"name": "id", "type": "INTEGER"}])
    with pytest.raises(StoreError, match="was not written by nightprice"):
        _Staging(parse(f"bigquery://{PROJECT}/{dataset}.listings"), "20261123T134500Z-1a2b3c").start()


def test_no_rights(bigquery: Dataset) -> None:
    warehouse, dataset = bigquery
    warehouse.closed.add(dataset)
    uri = f"bigquery://{PROJECT}/{dataset}.listings"
    with pytest.raises(StoreError, match=r"Permission denied\. Ask for the roles"):
        read_bigquery(uri, exactly("id"))
    with pytest.raises(StoreError, match=r"Permission denied\. Ask for the roles"):
        base.write(None, uri, lambda *_: {})  # type: ignore[arg-type]


def test_a_dataset_that_is_not_there(bigquery_server: Warehouse) -> None:
    with pytest.raises(StoreError, match=r"Not found: Dataset .*nowhere\. Check project, dataset and table"):
        read_bigquery(f"bigquery://{PROJECT}/nowhere.listings", exactly("id"))


def test_a_missing_table_is_named_with_the_closest(bigquery: Dataset, staging: _Staging) -> None:
    staging.publish({"version": "1"})
    with pytest.raises(StoreError, match=r'no table "listing"\. Did you mean "listings"\?'):
        read_bigquery(f"bigquery://{PROJECT}/{bigquery[1]}.listing", exactly("id"))


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    with pytest.raises(StoreError, match="gcloud auth application-default login"):
        read_bigquery(f"bigquery://{PROJECT}/a.b", exactly("id"))


@pytest.mark.parametrize(
    "uri", ["bigquery://p", "bigquery://p/dataset", "bigquery:///d.t", "bigquery://p/d.t?query=SELECT+1", "bigquery://p/d.t.x"]
)
def test_wrong_addresses(uri: str) -> None:
    with pytest.raises(StoreError, match="must name one table or one query"):
        parse(uri)


def test_a_query_is_no_sink() -> None:
    with pytest.raises(StoreError, match="a sink is one table"):
        parse("bigquery://p?query=SELECT+1").to_write()


def test_a_type_without_a_counterpart() -> None:
    with pytest.raises(ContractError, match='Column "x" of type'):
        fields_of(pa.schema([("x", pa.binary())]))
