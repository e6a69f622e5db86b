"""The second problem: rules, contracts and preparation of the flights from New York."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.flights import CONTRACT, OUTCOMES
from examples.flights.prepare import flights, prepare, with_outcome
from examples.flights.rules import minutes, weekday
from tests.support.reference_clean import clean_row
from transforms.clean import clean
from transforms.contract import Contract

FLIGHT = {
    "year": "2013",
    "month": "1",
    "day": "1",
    "dep_time": "517",
    "sched_dep_time": "515",
    "sched_arr_time": "819",
    "arr_delay": "11",
    "carrier": "UA",
    "flight": "1545",
    "origin": "EWR",
    "dest": "IAH",
    "distance": "1400",
    "time_hour": "2013-01-01T10:00:00Z",
    "outcome": "On time",
}


@pytest.mark.parametrize(
    ("raw", "expected"), [("0", 0), ("5", 5), ("59", 59), ("100", 60), ("517", 317), (" 1425 ", 865), ("2400", 1440)]
)
def test_a_time_of_day_in_minutes(raw: str, expected: int) -> None:
    assert minutes(raw) == expected


@pytest.mark.parametrize("raw", ["NA", "-5", "60", "1360", "12:30", "14.5", "10000", "١٢٣"])
def test_what_is_not_a_time_of_day(raw: str) -> None:
    with pytest.raises(ValueError, match="not a time of day"):
        minutes(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("2013-01-01T10:00:00Z", 2),
        # 23:00 on a Monday in winter, and 23:00 on a Monday in summer; 01:00 on a Tuesday in summer.
        ("2013-01-08T04:00:00Z", 1),
        ("2013-07-09T03:00:00Z", 1),
        ("2013-07-09T05:00:00Z", 2),
    ],
)
def test_the_day_is_new_yorks(raw: str, expected: int) -> None:
    assert weekday(raw) == expected


def test_an_hour_without_its_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="does not match"):
        weekday("2013-01-01T10:00:00")


@pytest.mark.parametrize("contract", [CONTRACT, OUTCOMES], ids=lambda contract: contract.name)
def test_the_contract_can_be_used(contract: Contract) -> None:
    assert contract.problems() == []


def test_a_flight_becomes_a_record() -> None:
    assert clean_row(FLIGHT, CONTRACT, CONTRACT.label).record == {
        "id": 4267987764714734342,
        "month": 1,
        "weekday": 2,
        "departure": 315,
        "arrival": 499,
        "carrier": "UA",
        "origin": "EWR",
        "destination": "IAH",
        "distance": 1400.0,
        "arr_delay": 11,
        "punctuality": "On time",
    }


@pytest.mark.parametrize(
    ("delay", "band"),
    [("-16", "Early"), ("-15", "Early"), ("-14", "On time"), ("15", "On time"), ("16", "Late"), ("61", "Very late")],
)
def test_bands_of_delay(delay: str, band: str) -> None:
    assert clean_row({**FLIGHT, "arr_delay": delay}, CONTRACT, CONTRACT.label).record["punctuality"] == band


@pytest.mark.parametrize(
    ("column", "raw", "reason"),
    [
        ("arr_delay", "NA", "arr_delay:missing"),
        ("flight", "", "id:missing"),
        ("sched_dep_time", "1360", "departure:unparseable"),
        ("time_hour", "10 o'clock", "weekday:unparseable"),
        ("origin", "BOS", "origin:not_allowed"),
        ("month", "13", "month:out_of_range"),
    ],
)
def test_what_is_wrong_is_named(column: str, raw: str, reason: str) -> None:
    assert clean_row({**FLIGHT, column: raw}, CONTRACT, CONTRACT.label).reasons == [reason]


def test_a_scheduled_arrival_that_cannot_be_read_is_missing() -> None:
    cleaned = clean_row({**FLIGHT, "sched_arr_time": "noon"}, CONTRACT, CONTRACT.label)

    assert (cleaned.record["arrival"], cleaned.warnings) == (None, ["arrival:unparseable"])


def test_outcomes_are_classes() -> None:
    assert clean_row(FLIGHT, OUTCOMES, OUTCOMES.label).record["outcome"] == "On time"
    assert clean_row({**FLIGHT, "outcome": "Lost"}, OUTCOMES, OUTCOMES.label).reasons == ["outcome:not_allowed"]


def test_what_came_of_a_flight() -> None:
    table = with_outcome(pa.table({"arr_delay": ["-5", "15", "16", "NA"]}))

    assert table["outcome"].to_pylist() == ["On time", "On time", "Late", "No arrival"]


def test_the_key_is_unique_and_the_day_is_that_of_the_date() -> None:
    """On the real data, all of it."""
    table = with_outcome(flights())

    accepted = clean(table, OUTCOMES, OUTCOMES.label).accepted

    assert len(accepted) == len(table) == 336_776
    assert len(accepted["id"].unique()) == len(table)
    date = pa.compute.binary_join_element_wise(*(table[name] for name in ("year", "month", "day")), "-")
    days = pa.compute.day_of_week(pa.compute.strptime(date, "%Y-%m-%d", "s"), count_from_zero=False, week_start=1)
    assert pa.compute.equal(days, accepted["weekday"]).unique().to_pylist() == [True]


def test_a_sample_is_spread_over_the_year(tmp_path: Path) -> None:
    assert prepare(tmp_path / "raw", shards=3, rows=1_000) == 1_000

    table = pq.read_table(tmp_path / "raw")
    assert len(list((tmp_path / "raw").iterdir())) == 3
    assert len(table) == 1_000
    assert set(table["month"].to_pylist()) == {str(month) for month in range(1, 13)}
    assert {field.type for field in table.schema} == {pa.string()}
