"""The contract as a value, and what follows from it."""

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nightprice.errors import ContractError, UsageError
from tests.support.raw_listings import LISTING
from tests.support.reference_clean import clean_row
from transforms.clean import clean
from transforms.contract import (
    Bands,
    Classes,
    Contract,
    Field,
    ListColumn,
    composite_key,
    label_from_json,
    load_contract,
)
from transforms.listings import CONTRACT
from transforms.readers import number, text

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
    cleaned = clean_row({**LISTING, "bathrooms_text": "some", "amenities": "see text"}, CONTRACT, LABEL)

    assert cleaned.reasons == []
    assert cleaned.record["bathrooms"] is None
    assert cleaned.record["tv"] is None
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
        match=r'x\.csv: column "accommodates" is missing\. Did you mean "acommodates"\? Available columns: acom.*'
        r'The contract in force is "listing-price" \(NIGHTPRICE_CONTRACT\)\.$',
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


def changed(**values: Any) -> Contract:
    """The contract of listings with some of its parts replaced."""
    return replace(CONTRACT, **values)


def no_text(raw: str) -> str:
    """A rule that reads nothing."""
    raise ValueError(f"{raw!r} is not a text")


def with_field(name: str, /, **values: Any) -> Contract:
    fields = tuple(replace(item, **values) if item.name == name else item for item in CONTRACT.fields)
    return changed(fields=fields)


def test_the_contract_of_listings_has_no_problems() -> None:
    assert CONTRACT.problems() == []


@pytest.mark.parametrize(
    ("contract", "problem"),
    [
        (changed(fields=(*CONTRACT.fields, CONTRACT.fields[-2])), 'Two fields are called "breakfast"'),
        (changed(key="ids"), 'The key "ids" is not a field. Did you mean "id"?'),
        (changed(name="My listings"), 'The name "My listings" must be of letters, digits'),
        (with_field("beds", columns="beds"), 'beds: its raw columns are the text "beds". Write a tuple: ("beds",).'),
        (with_field("beds", type="float32"), "beds: 'float32' is not an Arrow type"),
        (changed(target="prize"), 'The target "prize" is not a field. Did you mean "price"?'),
        (changed(key="accommodates"), 'The key "accommodates" has the type int16: it must be int64'),
        (
            changed(baseline=("bedroom",)),
            'The baseline names "bedroom", which is not a feature. Did you mean "bedrooms"?',
        ),
        (changed(label_column="model"), 'No key or label can be called "model"'),
        (with_field("beds", name="warnings"), 'No field or label can be called "warnings"'),
        (with_field("beds", columns=("reasons",)), 'No raw column can be called "reasons"'),
        (changed(breakdown=("beds",)), 'The breakdown names "beds", which is not a text'),
        (changed(label_column="price"), "needs a `label_column` that is not a field"),
        (changed(label=Classes(("Low", "High")), label_column=""), 'the target "price" is of type double'),
        (changed(example={**CONTRACT.example, "colour": "red"}), 'The example has "colour", which is not a field'),
        (
            changed(example={**CONTRACT.example, "latitude": None}),
            "latitude: the field is required, but the example does not have it",
        ),
        (
            with_field("neighbourhood", read=str.lower),
            "neighbourhood: its rule reads its own example 'Brooklyn' as",
        ),
        (with_field("neighbourhood", read=no_text), "reads its own example 'Brooklyn' as None (unparseable)"),
        (with_field("beds", high=1), "beds: the example is 2, expected a number from 0 to 1."),
        (changed(example={**CONTRACT.example, "beds": "2"}), "beds: the example is '2', expected a number from 0 to"),
        (changed(example={**CONTRACT.example, "neighbourhood": 5}), "neighbourhood: the example is 5, expected text."),
        (with_field("beds", read=text), "beds: the rule `text` reads a text, but the type is float"),
        (with_field("beds", columns=["beds"]), "beds: its raw columns are a list. Write a tuple."),
        (with_field("room_type", allowed="Loft"), 'room_type: its allowed values are the text "Loft"'),
        (
            with_field("room_type", allowed=("LOFT",), read=str.lower),
            'room_type: the allowed value "LOFT" can\'t occur',
        ),
        (with_field("beds", type=pa.date32()), "beds: no field is of type date32[day]"),
        (with_field("beds", low=5, high=1), "beds: low, 5, is above high, 1."),
        (with_field("beds", type=pa.uint8(), low=-1), "beds: set low and high, within what an uint8 holds: 0 to 255."),
        (with_field("accommodates", read=number), "accommodates: the rule reads fractions, but the type is int16"),
        (with_field("neighbourhood", low=1), "neighbourhood: a text has no low and high."),
        (
            with_field("neighbourhood", read={"a": "b"}.__getitem__),
            "neighbourhood: its rule raised KeyError for 'Brooklyn'",
        ),
        (with_field("beds", low="0"), "The contract can't be checked: "),
        (with_field("tv", required=True), "tv: a field that is read from a list can't be required"),
        (with_field("beds", name="amenities"), 'A field and a list are called "amenities". Rename the field.'),
        (changed(lists=CONTRACT.lists * 2), 'Two lists are called "amenities". Leave one of them.'),
        (
            changed(lists=(*CONTRACT.lists, ListColumn("extras", str.split, "More."))),
            '0 fields are read from the list "extras": from 1 to 61 can be.',
        ),
        (
            changed(example={**CONTRACT.example, "accommodates": 4.5}),
            "accommodates: the example is 4.5, expected",
        ),
        (changed(example={**CONTRACT.example, "beds": True}), "beds: the example is True, expected a number"),
        (with_field("neighbourhood", encoding="rankd"), 'there is no encoding "rankd". Did you mean "ranked"?'),
        (with_field("neighbourhood", encoding="fixed_order"), "neighbourhood: the encoding fixed_order needs"),
        (with_field("accommodates", high=40_000), "accommodates: set low and high, within what an int16 holds: -32768"),
        (with_field("accommodates", low=None), "accommodates: set low and high, within what an int16 holds"),
        (with_field("tv", columns=("amenitys",)), 'tv: "amenitys" is not among the lists of the contract'),
        (with_field("price", low=200), 'The label "Low" can\'t occur: "price" is a number of at least 200'),
        (with_field("price", low=0, high=180), 'The label "High" can\'t occur: "price" is a number from 0 to 180'),
    ],
)
def test_a_contract_that_cannot_work_is_told_in_one_sentence(contract: Contract, problem: str) -> None:
    (found,) = [sentence for sentence in contract.problems() if problem in sentence]

    assert found.endswith((".", "?"))


def test_the_rule_of_a_number_need_not_read_the_example() -> None:
    """Over HTTP a caller sends the value, say minutes, not the raw text, say hours."""
    assert with_field("beds", read=lambda text: float(text) * 60).problems() == []


def test_classes_that_the_rule_of_the_target_never_gives_are_told() -> None:
    target = Field("outcome", ("outcome",), str.lower, pa.string(), "How it ended.", required=True)
    contract = changed(
        fields=(*CONTRACT.fields[:-1], target), target="outcome", label=Classes(("Good", "bad")), label_column=""
    )

    assert contract.problems() == ['The label "Good" can\'t occur: the rule of "outcome" reads it as \'good\'.']


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("transforms.listing:CONTRACT", "can't be loaded: No module named 'transforms.listing'. Start the command in"),
        ("transforms.listings:CONTRAKT", "has no attribute 'CONTRAKT'. Set it to MODULE:NAME"),
        ("transforms.listings:ROOM_TYPES", "is a tuple"),
        ("transforms.listings", "Set it to MODULE:NAME"),
    ],
)
def test_a_setting_that_names_no_contract_is_one_sentence(reference: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        load_contract(reference)


def test_a_module_that_is_not_python_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("CONTRACT = Contract(\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        UsageError, match=r"half_written:CONTRACT\" can't be loaded: '\(' was never closed.*Correct the module\."
    ):
        load_contract("half_written:CONTRACT")


def test_a_module_that_ends_the_process_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit('usage: script FILE')\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UsageError, match=r"can't be loaded: usage: script FILE \(line 3 of script\)\. Correct the mod"):
        load_contract("script:CONTRACT")


def test_a_contract_that_is_wrong_is_wrong_usage_like_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from dataclasses import replace\nfrom transforms.listings import CONTRACT\n"
    (tmp_path / "wrong.py").write_text(f"{source}CONTRACT = replace(CONTRACT, key='no_field')\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UsageError, match=r'wrong:CONTRACT" can\'t be used\. .*no_field'):
        load_contract("wrong:CONTRACT")


def test_a_mistake_in_a_module_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mistyped.py").write_text("import re\n\nCONTRACT = gramms\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UsageError, match=r"name 'gramms' is not defined \(line 3 of mistyped\)\. Correct the module\."):
        load_contract("mistyped:CONTRACT")


def test_the_key_of_a_record_is_the_one_that_cleaning_computes() -> None:
    key = composite_key("id", ("carrier", "flight"), "")
    contract = replace(CONTRACT, fields=(key, *CONTRACT.fields[1:]), key="id")

    assert contract.key_of("UA ", "1545") == key.read_text("UA\x1f1545")[0]
    with pytest.raises(ValueError, match="A key is read from 2 texts, not from 1"):
        contract.key_of("UA")
    with pytest.raises(ValueError, match="texts that are not blank"):
        contract.key_of("UA", " ")


def test_a_contract_travels_to_workers_and_stays_the_same() -> None:
    again = pickle.loads(pickle.dumps(CONTRACT))

    assert (again, hash(again)) == (CONTRACT, hash(CONTRACT))
    assert again.by_name["price"].read("$75.00") == 75.0


def test_the_digest_follows_the_fields_and_not_their_descriptions() -> None:
    assert with_field("beds", description="Places to sleep.").digest == CONTRACT.digest
    assert with_field("beds", high=99).digest != CONTRACT.digest
    assert changed(label=CONTRACT.label.override(bins=(1.0,), labels=("a", "b"), minimum=0.5)).digest == CONTRACT.digest


@pytest.mark.parametrize(
    ("ref", "difference"),
    [
        (None, 'under no contract that is recorded; this is contract "listing-price"'),
        ({**CONTRACT.ref, "name": "flights"}, 'under the contract "flights"; this is contract "listing-price"'),
        ({**CONTRACT.ref, "version": 2}, 'under version 2 of the contract "listing-price"; this is version 1'),
        ({**CONTRACT.ref, "digest": "0"}, "under another table of fields"),
    ],
)
def test_what_another_contract_made_is_told_apart(ref: dict[str, Any] | None, difference: str) -> None:
    assert difference in str(CONTRACT.difference(ref))
    assert CONTRACT.difference(CONTRACT.ref) is None


TRIP = composite_key("id", ("line", "day"), "Line and day.")


def trips(key: Field = TRIP) -> Contract:
    """A contract without a column of ids."""
    late = Field("late", ("late",), number, pa.float64(), "Minutes.", required=True)
    line = Field("line", ("line",), text, pa.string(), "Line.", required=True)
    label = Bands((0.0,), ("punctual", "late"))
    return Contract(
        "trips", 1, "trip", "trips", (key, line, late), "id", "late", label, "outcome", example={"line": "U1"}
    )


def test_a_key_of_several_columns_is_the_same_number_for_the_same_texts() -> None:
    raw = pa.table({"line": ["U1", " U1 ", "U2", "U1"], "day": ["5", "5", "5", ""], "late": ["0", "1", "2", "3"]})

    cleaned = clean(raw, trips(), trips().label)

    first, second, third = cleaned.accepted["id"].to_pylist()
    assert first == second != third
    assert cleaned.rejected["reasons"].to_pylist() == [["id:missing"]]
    assert all(0 <= key < 2**63 for key in (first, third))


def test_columns_of_a_key_are_not_run_together() -> None:
    raw = pa.table({"line": ["U1", "U"], "day": ["5", "15"], "late": ["0", "1"]})

    assert len(set(clean(raw, trips(), trips().label).accepted["id"].to_pylist())) == 2


def test_all_columns_of_a_key_are_needed() -> None:
    assert trips().problems() == []
    with pytest.raises(ContractError, match='column "line" and "day" is missing'):
        trips().choose_columns(["line", "late"], "x.csv")
