"""The table of fields and what follows from it."""

from typing import Any

import pytest

from nightprice.errors import ContractError
from tests.support.raw_listings import LISTING
from tests.support.reference_clean import clean_row
from transforms.contract import Bands, label_from_json
from transforms.listings import CONTRACT

LABEL = CONTRACT.label


def test_a_listing_becomes_a_record() -> None:
    cleaned = clean_row(LISTING, CONTRACT, LABEL)

    assert cleaned.reasons == []
    assert cleaned.warnings == []
    assert cleaned.record == {
        "id": 1009876543210987655,
        "neighbourhood": "Brooklyn",
        "room_type": "Entire home/apt",
        "property_type": "Entire loft",
        "accommodates": 3,
        "bathrooms": 0.5,
        "bedrooms": None,
        "beds": 2.0,
        "latitude": 40.68494,
        "longitude": -73.95765,
        "tv": True,
        "internet": True,
        "air_conditioning": False,
        "kitchen": False,
        "heating": False,
        "wifi": True,
        "elevator": False,
        "breakfast": False,
        "price": 1234.0,
        "price_category": "Lux",
    }


@pytest.mark.parametrize(
    ("column", "raw", "reason"),
    [
        ("id", "", "id:missing"),
        ("id", "abc", "id:unparseable"),
        ("id", "-4", "id:out_of_range"),
        ("id", str(2**63), "id:out_of_range"),
        ("room_type", "Castle", "room_type:not_allowed"),
        ("room_type", None, "room_type:missing"),
        ("accommodates", "0", "accommodates:out_of_range"),
        ("accommodates", "two", "accommodates:unparseable"),
        ("bathrooms_text", "99 baths", "bathrooms:out_of_range"),
        ("beds", "-1", "beds:out_of_range"),
        ("latitude", "91", "latitude:out_of_range"),
        ("longitude", " ", "longitude:missing"),
        ("price", "", "price:missing"),
        ("price", "ask me", "price:unparseable"),
        ("price", "$9.99", "price:below_minimum"),
    ],
)
def test_what_is_wrong_is_named(column: str, raw: str | None, reason: str) -> None:
    assert clean_row({**LISTING, column: raw}, CONTRACT, LABEL).reasons == [reason]


def test_all_reasons_are_named() -> None:
    row = {**LISTING, "price": "x", "latitude": "1000", "room_type": "Tent"}

    assert clean_row(row, CONTRACT, LABEL).reasons == [
        "room_type:not_allowed",
        "latitude:out_of_range",
        "price:unparseable",
    ]


def test_an_optional_value_that_cannot_be_read_is_missing_and_a_warning() -> None:
    cleaned = clean_row({**LISTING, "bathrooms_text": "some", "amenities": "TV"}, CONTRACT, LABEL)

    assert cleaned.reasons == []
    assert cleaned.record["bathrooms"] is None
    assert cleaned.record["tv"] is False
    assert cleaned.warnings == ["amenities:unparseable", "bathrooms:unparseable"]


def test_without_pricing_the_price_is_left_out() -> None:
    cleaned = clean_row({**LISTING, "price": None}, CONTRACT)

    assert cleaned.reasons == []
    assert set(cleaned.record) == set(CONTRACT.accepted_schema(with_target=False).names)


def test_the_second_column_counts_where_the_first_is_blank() -> None:
    row = {**LISTING, "neighbourhood_group_cleansed": " ", "bathrooms_text": None, "bathrooms": "1.5"}

    record = clean_row(row, CONTRACT, LABEL).record

    assert (record["neighbourhood"], record["bathrooms"]) == ("Bedford-Stuyvesant", 1.5)


@pytest.mark.parametrize(
    ("price", "category"),
    [
        (10, "Low"),
        (90, "Low"),
        (90.01, "Mid"),
        (180, "Mid"),
        (180.01, "High"),
        (400, "High"),
        (400.01, "Lux"),
        (1e9, "Lux"),
    ],
)
def test_bins_include_their_upper_bound_and_ten_is_low(price: float, category: str) -> None:
    assert LABEL.label_of(price) == category  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "inside", "outside", "reason"),
    [
        ("price", "$10.00", "$9.99", "price:below_minimum"),
        ("accommodates", "64", "65", "accommodates:out_of_range"),
        ("accommodates", "1", "0", "accommodates:out_of_range"),
        ("latitude", "90", "90.001", "latitude:out_of_range"),
        ("longitude", "-180", "-180.001", "longitude:out_of_range"),
        ("bathrooms_text", "50 baths", "50.5 baths", "bathrooms:out_of_range"),
    ],
)
def test_bounds_belong_to_their_range(column: str, inside: str, outside: str, reason: str) -> None:
    assert clean_row({**LISTING, column: inside}, CONTRACT, LABEL).reasons == []
    assert clean_row({**LISTING, column: outside}, CONTRACT, LABEL).reasons == [reason]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bins": (90.0, 180.0)},
        {"bins": (180.0, 90.0, 400.0)},
        {"minimum": 90.0},
        {"labels": ("A", "B", "C", "A")},
        {"labels": ("A", "B", " ", "D")},
        {"bins": (float("nan"), 180.0, 400.0)},
        {"bins": (90.0, 180.0, float("inf"))},
        {"minimum": float("nan")},
    ],
)
def test_pricing_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=r"bins|label"):
        LABEL.override(**wrong)


def test_pricing_survives_json() -> None:
    label = Bands((1.0, 2.0), ("a", "b", "c"), 0.5)

    assert label_from_json(label.as_json()) == label


def test_a_missing_column_is_one_clear_error() -> None:
    there = [name for name in CONTRACT.raw_columns if name != "accommodates"] + ["acommodates"]

    with pytest.raises(
        ContractError,
        match=r'x\.csv: column "accommodates" is missing\. Did you mean "acommodates"\? Available columns: acom',
    ):
        CONTRACT.choose_columns(there, "x.csv")


def test_a_column_that_is_there_twice_is_one_clear_error() -> None:
    with pytest.raises(ContractError, match=r'x\.csv: column "price" occurs 2 times\. Leave one of them\.'):
        CONTRACT.choose_columns([*CONTRACT.raw_columns, "price", "host_name", "host_name"], "x.csv")


def test_one_of_two_columns_is_enough_and_others_are_left_out() -> None:
    there = [name for name in CONTRACT.raw_columns if name != "bathrooms"] + ["estimated_revenue_l365d"]

    assert CONTRACT.choose_columns(there, "x") == there[:-1]


def test_the_price_is_needed_for_training_only() -> None:
    there = [name for name in CONTRACT.raw_columns if name != "price"]

    assert CONTRACT.choose_columns(there, "x", with_target=False) == there
    with pytest.raises(ContractError, match='"price" is missing'):
        CONTRACT.choose_columns(there, "x")


def test_seventeen_features_from_neighbourhood_to_breakfast() -> None:
    assert (len(CONTRACT.features), CONTRACT.features[0], CONTRACT.features[-1]) == (17, "neighbourhood", "breakfast")


def test_what_is_allowed_is_said_in_words() -> None:
    assert CONTRACT.by_name["latitude"].expected() == "a number from -90 to 90"
    assert CONTRACT.by_name["id"].expected() == "a whole number of at least 1"
    assert CONTRACT.by_name["room_type"].expected().startswith('one of "Shared room", "Private room"')
