"""The same cases over every store: what one promises, all keep."""

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import ray.data

from nightprice.address import parse_address
from nightprice.errors import ContractError
from pipeline.cluster.session import ray_errors
from pipeline.datasets import open_dataset
from pipeline.errors import GateRefused
from pipeline.io import Staged, StoreError, exactly, read, tag, write
from pipeline.manifests import DatasetManifest
from tests.support import stores
from tests.support.contracts import FLIGHT_OUTCOMES, FLIGHTS, Example
from tests.support.stores import Store, rows_at
from transforms.clean import clean, rejected_schema
from transforms.listings import CONTRACT

pytestmark = pytest.mark.usefixtures("ray_session")

SOURCES = (
    "parquet",
    "csv",
    "csv.gz",
    "jsonl",
    "s3",
    "sqlite",
    "postgresql",
    "bigquery",
    "delta",
    "delta+s3",
    "iceberg",
)
SINKS = ("parquet", "s3", "sqlite", "postgresql", "bigquery", "delta", "delta+s3", "iceberg")

HUGE = 2**53 + 1
RAW = pa.table(
    {
        "id": [str(HUGE), "2", None, str(2**63 - 1)],
        "price": ["$1,234.00", None, "", "$90.00"],
        "amenities": ['["TV", "Caf\\u00e9"]', "[]", None, '["it\'s 55\\" HDTV"]'],
        "room_type": ['a "quoted", name', "two\nlines", "Zoë 東京 🏠 'x'", "a\\back;slash\tand %s $1"],
    },
    schema=pa.schema([(name, pa.string()) for name in ("id", "price", "amenities", "room_type")]),
)


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Store]:
    """The store of a name, with nothing in it."""

    def of_name(name: str) -> Store:
        match name:
            case "s3":
                return stores.s3(request.getfixturevalue("s3").uri)
            case "delta":
                return stores.delta(f"delta://{tmp_path}")
            case "delta+s3":
                return stores.delta(f"delta+{request.getfixturevalue('s3').uri}")
            case "iceberg":
                return stores.iceberg(request.getfixturevalue("iceberg_namespace"))
            case "postgresql":
                return stores.postgresql(*request.getfixturevalue("postgres"))
            case "bigquery":
                return stores.bigquery(*request.getfixturevalue("bigquery"))
        kinds = {"parquet": stores.parquet, "csv": stores.csv_file, "csv.gz": stores.csv_gz, "jsonl": stores.json_lines}
        return (kinds | {"sqlite": stores.sqlite})[name](tmp_path)

    return of_name


# Sources.


@pytest.mark.parametrize("name", SOURCES)
def test_rows_come_as_they_are_stored(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    uri = store.put(RAW)
    found = rows_at(uri, exactly("room_type", "id", "price", "amenities")).take_all()
    # CSV does not tell an empty text from none.
    expected = [row | {"price": row["price"] or None} for row in RAW.to_pylist()]
    assert sorted(({key: row[key] or None for key in RAW.column_names} for row in found), key=str) == sorted(
        expected, key=str
    )
    assert all(row["source_file"] for row in found)
    assert store.secret is None or store.secret not in str(found)


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_chosen_columns_are_read(name: str, make: Callable[[str], Store]) -> None:
    (row, *_) = rows_at(make(name).put(RAW), exactly("id")).take_all()
    assert set(row) - {"invalid_row"} == {"id", "source_file"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_without_rows_has_none(name: str, make: Callable[[str], Store]) -> None:
    assert rows_at(make(name).put(RAW.slice(0, 0)), exactly("id")).take_all() == []


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_column_is_named_with_the_closest(name: str, make: Callable[[str], Store]) -> None:
    uri = make(name).put(RAW)
    with pytest.raises(ContractError, match=r'column "room_typ" is missing. Did you mean "room_type"\?'), ray_errors():
        rows_at(uri, exactly("id", "room_typ")).take_all()


@pytest.mark.parametrize("name", SOURCES)
def test_an_address_that_leads_nowhere_is_one_clear_error(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    assert store.wrong
    with pytest.raises(StoreError) as caught, ray_errors():
        rows_at(store.wrong, exactly("id")).take_all()
    message = str(caught.value)
    assert "\n" not in message
    assert re.sub(r":[^:@/]*@", "@", store.wrong).removeprefix("s3://") in message
    assert "no-such-password" not in message


# Sinks.

SCHEMA = CONTRACT.accepted_schema()


def _listing(number: int, **values: Any) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {
        item.name: False for item in SCHEMA if pa.types.is_boolean(item.type)
    }
    return (
        record
        | {"id": number, "price": 90.1, "latitude": 40.123456789012345, "bathrooms": 1.5, "accommodates": 2}
        | values
    )


ACCEPTED = [
    _listing(HUGE, neighbourhood='a "quoted", name', tv=True, price_category="Low"),
    _listing(2, neighbourhood="two\r\nlines", bedrooms=None),
    _listing(3, neighbourhood="Zoë 東京 🏠 'x'", property_type=""),
]
REJECTED: list[dict[str, Any]] = [
    {"id": str(HUGE), "price": "no\nprice", "reasons": ["price:unparseable", "latitude:missing"]},
    {"id": None, "price": 'a "quote"', "reasons": ["id:missing"]},
]


def tagged(accepted: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> pa.Table:
    """One tagged block; the first accepted row has a warning."""
    good = pa.Table.from_pylist(accepted, schema=SCHEMA)
    bad = pa.Table.from_pylist(rejected, schema=rejected_schema(CONTRACT))
    warnings = [["beds:unparseable"] if number == 0 else None for number in range(len(good))]
    return tag(good, bad, pa.array(warnings, pa.list_(pa.string())))


def dataset_of(*blocks: pa.Table) -> ray.data.Dataset:
    return ray.data.from_arrow(list(blocks))


def written(store: Store, rows: ray.data.Dataset) -> AbstractContextManager[Staged]:
    assert store.sink
    return write(parse_address(store.sink), rows, rejected_schema(CONTRACT), "id")


def publish_rows(store: Store, rows: ray.data.Dataset) -> DatasetManifest:
    """Write rows and publish them, with what they are counted as."""
    with written(store, rows) as staged:
        manifest = {
            "version": staged.version,
            "contract": CONTRACT.ref,
            "rows": {"accepted": staged.stats.accepted, "rejected": staged.stats.rejected},
            "reasons": dict(staged.stats.reasons),
            "warnings": dict(staged.stats.warnings),
        }
        staged.publish(cast(DatasetManifest, manifest))
    return cast(DatasetManifest, manifest)


def publish(store: Store, *blocks: pa.Table) -> DatasetManifest:
    """Write blocks and publish them."""
    return publish_rows(store, dataset_of(*blocks))


@pytest.mark.parametrize("name", SINKS)
def test_both_parts_come_back_equal(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    manifest = publish(store, tagged(ACCEPTED[:1], REJECTED[:1]), tagged(ACCEPTED[1:], []), tagged([], REJECTED[1:]))

    assert manifest["rows"] == {"accepted": 3, "rejected": 2}
    assert manifest["reasons"] == {"price:unparseable": 1, "latitude:missing": 1, "id:missing": 1}
    assert manifest["warnings"] == {"beds:unparseable": 2}
    assert store.sink
    assert open_dataset(store.sink, CONTRACT).manifest == manifest
    assert open_dataset(store.sink, CONTRACT).rows(SCHEMA.names).schema().base_schema.remove_metadata() == SCHEMA
    assert store.accepted(SCHEMA.names) == sorted(ACCEPTED, key=lambda row: int(row["id"]))
    assert sorted(store.rejected(list(REJECTED[0])), key=str) == sorted(REJECTED, key=str)


@pytest.mark.parametrize("name", ["parquet", "sqlite", "delta", "iceberg"])
@pytest.mark.parametrize("example", [FLIGHTS, FLIGHT_OUTCOMES], ids=str)
def test_a_dataset_of_another_contract_comes_back_equal(
    name: str, example: Example, make: Callable[[str], Store]
) -> None:
    store, contract = make(name), example.contract
    raw = example.table([*example.rows(40), {**example.good, "origin": "BOS"}])
    cleaned = clean(raw, contract, contract.label)
    rows = dataset_of(tag(cleaned.accepted, cleaned.rejected, cleaned.warnings))
    assert store.sink
    with write(parse_address(store.sink), rows, rejected_schema(contract), contract.key) as staged:
        staged.publish(cast(DatasetManifest, {"version": staged.version, "contract": contract.ref, "rows": {}}))

    dataset = open_dataset(store.sink, contract)

    stored = dataset.rows(cleaned.accepted.column_names)
    assert stored.schema().base_schema.remove_metadata() == cleaned.accepted.schema
    assert sorted(stored.take_all(), key=str) == sorted(cleaned.accepted.to_pylist(), key=str)
    assert len(cleaned.rejected) > 0
    assert read(dataset.rejected, exactly("origin")).rows.count() == len(cleaned.rejected)


@pytest.mark.parametrize("name", SINKS)
def test_a_new_version_replaces_the_old(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    first = publish(store, tagged(ACCEPTED, REJECTED))
    second = publish(store, tagged(ACCEPTED[:1], []))
    assert store.sink
    assert open_dataset(store.sink, CONTRACT).version == second["version"] != first["version"]
    assert [row["id"] for row in store.accepted(["id"])] == [HUGE]


@pytest.mark.parametrize("name", SINKS)
def test_a_refused_version_keeps_its_rejected_rows_and_the_old_one_stays(
    name: str, make: Callable[[str], Store]
) -> None:
    store = make(name)
    assert store.sink
    live = publish(store, tagged(ACCEPTED, REJECTED))
    with (
        pytest.raises(GateRefused, match="kept at ") as caught,
        written(store, dataset_of(tagged(ACCEPTED[:1], REJECTED[:1]))) as staged,
    ):
        raise GateRefused(f"too many; they are kept at {staged.rejected_at}")

    assert open_dataset(store.sink, CONTRACT).manifest == live
    assert len(store.accepted(["id"])) == 3
    kept = str(caught.value).partition("kept at ")[2]
    if name == "s3":
        kept = f"s3://{kept}"
    elif name == "postgresql":
        kept = kept.replace("owner@", "owner:s3cr3t%2F@")
    assert [row["price"] for row in rows_at(kept, exactly("price")).take_all()] == ["no\nprice"]


def _breaks_off(row: pa.Table) -> Iterator[pa.Table]:
    yield tagged(ACCEPTED[:1], REJECTED)
    raise StoreError("the source broke off")


@pytest.mark.parametrize("name", SINKS)
def test_a_write_that_fails_half_way_changes_nothing(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    assert store.sink
    live = publish(store, tagged(ACCEPTED, REJECTED))
    broken = ray.data.range(1).map_batches(_breaks_off, batch_format="pyarrow")
    with pytest.raises(StoreError, match="the source broke off"), ray_errors():
        publish_rows(store, broken)
    assert open_dataset(store.sink, CONTRACT).manifest == live
    assert len(store.accepted(["id"])) == 3


def _dies_once(row: pa.Table, marker: Path) -> Iterator[pa.Table]:
    yield tagged(ACCEPTED[:2], REJECTED)
    if not marker.exists():
        marker.touch()
        os._exit(1)
    yield tagged(ACCEPTED[2:], [])


@pytest.mark.parametrize("name", SINKS)
def test_a_worker_that_dies_loses_and_duplicates_nothing(
    name: str, make: Callable[[str], Store], tmp_path: Path
) -> None:
    store = make(name)
    assert store.sink
    marker = tmp_path / "died"
    publish_rows(store, ray.data.range(1).map_batches(partial(_dies_once, marker=marker), batch_format="pyarrow"))
    assert marker.exists()
    assert [row["id"] for row in store.accepted(["id"])] == [2, 3, HUGE]
    assert len(store.rejected(["reasons"])) == 2


def _meets(row: pa.Table, rows: list[dict[str, Any]], mine: Path, others: Path) -> Iterator[pa.Table]:
    """Goes on when the other run has written something, too."""
    yield tagged(rows[:1], REJECTED)
    mine.touch()
    while not others.exists():
        time.sleep(0.01)
    yield tagged(rows[1:], [])


@pytest.mark.parametrize("name", SINKS)
def test_two_runs_at_once_on_one_sink_leave_one_of_them_whole(
    name: str, make: Callable[[str], Store], tmp_path: Path
) -> None:
    """Promise: neither sees the other; the one that publishes last is live, with its own manifest and its own rows."""
    store = make(name)
    marks = tmp_path / "one", tmp_path / "two"

    def run(rows: list[dict[str, Any]], mine: Path, others: Path) -> DatasetManifest:
        meets = partial(_meets, rows=rows, mine=mine, others=others)
        return publish_rows(store, ray.data.range(1).map_batches(meets, batch_format="pyarrow"))

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, ACCEPTED, *marks), pool.submit(run, ACCEPTED[:2], *marks[::-1])]
        manifests = [run.result() for run in runs]

    assert store.sink
    live = open_dataset(store.sink, CONTRACT).manifest
    assert live in manifests
    assert len(store.accepted(["id"])) == live["rows"]["accepted"]
    assert len(store.rejected(["reasons"])) == len(REJECTED)


@pytest.mark.parametrize("name", SINKS)
def test_a_dataset_may_have_no_accepted_rows(name: str, make: Callable[[str], Store]) -> None:
    store = make(name)
    assert publish(store, tagged([], []))["rows"] == {"accepted": 0, "rejected": 0}
    assert store.sink
    assert open_dataset(store.sink, CONTRACT).manifest["rows"]["accepted"] == 0
