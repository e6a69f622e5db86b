"""Batch cleaning: what one pass over a table says, and that it says the same as one row at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightprice.errors import ContractError
from tests.support.contracts import ALL, FLIGHTS, LISTINGS, Example
from tests.support.generated_rows import raw_rows
from tests.support.raw_listings import LISTING, table_of
from tests.support.reference_clean import clean_row
from transforms import clean as clean_module
from transforms.clean import INVALID_ROW, INVALID_ROW_REASON, SOURCE_FILE, as_text, clean, rejected_schema
from transforms.contract import Contract
from transforms.encode import Encoder, learn_vocabulary
from transforms.listings import CONTRACT
from transforms.listings.amenities import AMENITIES

Row = Mapping[str, str | None]
LABEL = CONTRACT.label


def encoder_of(contract: Contract, rows: Sequence[Mapping[str, Any]]) -> Encoder:
    """As if a model had seen every value often enough to learn it."""
    counts = {name: {row[name]: [30, 0] for row in rows if row[name] is not None} for name in contract.coded}
    return Encoder(contract, learn_vocabulary(contract, counts))


def assert_same(rows: Sequence[Row], example: Example = LISTINGS) -> None:
    """Batch path and single-value path give bit-equal records, reasons, warnings and features; else the field is
    named.
    """
    contract = example.contract
    cleaned = clean(example.table(rows), contract, contract.label)
    singles = [clean_row(row, contract, contract.label) for row in rows]
    good = [single for single in singles if not single.reasons]
    assert cleaned.accepted.num_rows == len(good)
    assert cleaned.rejected["reasons"].to_pylist() == [single.reasons for single in singles if single.reasons]
    assert [sorted(found or []) for found in cleaned.warnings.to_pylist()] == [
        sorted(single.warnings) for single in good
    ]
    for batch, single in zip(cleaned.accepted.to_pylist(), good, strict=True):
        for name, value in single.record.items():
            assert same(batch[name], value), f"{name}: batch says {batch[name]!r}, a single row {value!r}"
    if good:
        encoder = encoder_of(contract, [single.record for single in good])
        matrix = encoder.table(cleaned.accepted)
        for row, single in zip(matrix, good, strict=True):
            for position, name in enumerate(contract.features):
                expected = encoder.record(single.record)[position]
                assert row[position].tobytes() == expected.tobytes(), (
                    f"{name}: encoded {row[position]!r} in batch, {expected!r} alone"
                )


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return type(left) is type(right) and bool(left == right)


@pytest.mark.parametrize("example", ALL, ids=str)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_batch_and_single_value_agree(example: Example, data: st.DataObject) -> None:
    assert_same(data.draw(st.lists(raw_rows(example), max_size=8)), example)


@pytest.mark.parametrize(("column", "field"), [("beds", "beds"), ("amenities", "tv"), ("price", "price")])
def test_a_disagreement_names_the_field(monkeypatch: pytest.MonkeyPatch, column: str, field: str) -> None:
    """The property test itself is tested: a batch path that reads another column's text must be caught."""
    genuine = clean_module._raw_column
    other = {"beds": "7", "amenities": "[]", "price": "$999.00"}[column]
    wrong = pa.array([other], pa.string())
    monkeypatch.setattr(clean_module, "_raw_column", lambda raw, name: wrong if name == column else genuine(raw, name))

    with pytest.raises(AssertionError, match=f"^{field}: "):
        assert_same([LISTING])


def test_a_rule_never_reads_a_blank_text() -> None:
    """It may well make a value of it: `minutes` pads with zeros."""
    blank = {**FLIGHTS.good, "sched_dep_time": " "}

    assert clean(FLIGHTS.table([blank]), FLIGHTS.contract).rejected["reasons"].to_pylist() == [["departure:missing"]]


def test_a_rejected_row_keeps_its_raw_values_its_file_and_all_its_reasons() -> None:
    raw = table_of([LISTING, {**LISTING, "price": "ask me", "latitude": "91"}]).append_column(
        SOURCE_FILE, pa.array(["a.csv", "b.csv"])
    )

    cleaned = clean(raw, CONTRACT, LABEL)

    (rejected,) = cleaned.rejected.to_pylist()
    assert cleaned.rejected.schema == rejected_schema(CONTRACT)
    assert (rejected["price"], rejected["latitude"], rejected["amenities"]) == ("ask me", "91", LISTING["amenities"])
    assert rejected[SOURCE_FILE] == "b.csv"
    assert rejected["reasons"] == ["latitude:out_of_range", "price:unparseable"]


def test_a_line_that_is_no_row_is_rejected_with_that_reason_alone() -> None:
    raw = table_of([LISTING, {}]).append_column(INVALID_ROW, pa.array([None, "1,2,oops"]))

    (rejected,) = clean(raw, CONTRACT, LABEL).rejected.to_pylist()

    assert (rejected["reasons"], rejected[INVALID_ROW]) == ([INVALID_ROW_REASON], "1,2,oops")


def test_rows_that_are_not_utf8_and_rows_without_a_value_have_reasons_of_their_own() -> None:
    blank = dict.fromkeys(LISTING, " ") | {"price": "NA"}
    raw = table_of([LISTING, {}, blank, {**blank, "beds": "1"}]).append_column(
        INVALID_ROW, pa.array([None, "1,caf\\xe9", None, None])
    )

    invalid, empty, nearly_empty = clean(raw, CONTRACT, LABEL).rejected["reasons"].to_pylist()

    assert (invalid, empty) == (["row:not_utf8"], ["row:blank"])
    assert "id:missing" in nearly_empty
    assert len(nearly_empty) > 3


def test_a_value_from_another_column_than_the_first_is_a_warning() -> None:
    other = {**LISTING, "neighbourhood_group_cleansed": "N/A", "neighbourhood_cleansed": "Astoria"}

    cleaned = clean(table_of([LISTING, other]), CONTRACT, LABEL)

    assert cleaned.accepted["neighbourhood"].to_pylist() == ["Brooklyn", "Astoria"]
    assert cleaned.warnings.to_pylist() == [None, ["neighbourhood:other_column"]]


def test_typed_columns_are_read_as_their_text() -> None:
    typed = table_of([LISTING])
    for name, value in {"id": 1009876543210987655, "accommodates": 3, "price": 1234.0, "latitude": 40.68494}.items():
        typed = typed.set_column(typed.column_names.index(name), name, pa.array([value]))
    typed = typed.set_column(
        typed.column_names.index("amenities"), "amenities", pa.array([["TV", "Fast wifi – 100 Mbps"]])
    )

    assert (
        clean(typed, CONTRACT, LABEL).accepted.to_pylist()
        == clean(table_of([LISTING]), CONTRACT, LABEL).accepted.to_pylist()
    )


def typed_table(name: str, column: pa.Array) -> pa.Table:
    """Good listings, as many as the column is long, with that column in a type of its own."""
    raw = table_of([LISTING] * len(column))
    return raw.set_column(raw.column_names.index(name), name, column)


@pytest.mark.parametrize("type", [pa.float64(), pa.float32()])
def test_an_id_that_was_rounded_by_a_float_is_refused(type: pa.DataType) -> None:
    cleaned = clean(
        typed_table("id", pa.array([1041629.0, 2.0**53, 540000001041629952.0, None], type)), CONTRACT, LABEL
    )

    assert cleaned.accepted["id"].to_pylist() == [1041629]
    assert cleaned.rejected["reasons"].to_pylist() == [["id:unparseable"], ["id:unparseable"], ["id:missing"]]


TEXTS = [pa.string_view(), pa.large_string()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view()]


def in_dictionary(column: pa.Array) -> pa.Array:
    """The same rows, dictionary-encoded; Arrow has no cast for that of every type."""
    return pa.DictionaryArray.from_arrays(pa.array(range(len(column)), pa.int8()), column)


@pytest.mark.parametrize("encode", [lambda column: column, in_dictionary], ids=["plain", "dictionary"])
@pytest.mark.parametrize("type", [pa.string(), *TEXTS, *BYTES], ids=str)
def test_other_types_of_text_are_read_and_kept_when_rejected(type: pa.DataType, encode: Any) -> None:
    cleaned = clean(typed_table("price", encode(pa.array(["$75.00", "ask me"]).cast(type))), CONTRACT, LABEL)

    assert (cleaned.accepted["price"].to_pylist(), cleaned.rejected["price"].to_pylist()) == ([75.0], ["ask me"])


@pytest.mark.parametrize("encode", [lambda column: column, in_dictionary], ids=["plain", "dictionary"])
@pytest.mark.parametrize("type", BYTES, ids=str)
def test_of_bytes_that_are_not_utf8_only_the_row_is_rejected(type: pa.DataType, encode: Any) -> None:
    columns = {
        "property_type": encode(pa.array(["Loft", b"caf\xe9", None, "Loft"], type)),
        "id": pa.array([1, 2, 3, None]),
    }
    raw = table_of([LISTING] * 3 + [{}]).drop_columns(list(columns))
    for name, column in columns.items():
        raw = raw.append_column(name, column)
    about_rows = {SOURCE_FILE: ["a", "b", "c", "d"], INVALID_ROW: [None, None, None, "4,oops"]}

    cleaned = clean(pa.table({**dict(zip(raw.column_names, raw.columns, strict=True)), **about_rows}), CONTRACT, LABEL)

    assert cleaned.accepted.select(["id", "property_type"]).to_pylist() == [
        {"id": 1, "property_type": "Loft"},
        {"id": 3, "property_type": None},
    ]
    rejected, invalid = cleaned.rejected.to_pylist()
    assert (rejected["reasons"], rejected[SOURCE_FILE], rejected["id"]) == (["row:not_utf8"], "b", None)
    assert rejected[INVALID_ROW].startswith("2,")
    assert r"caf\xe9" in rejected[INVALID_ROW]
    assert (invalid["reasons"], invalid[SOURCE_FILE], invalid[INVALID_ROW]) == ([INVALID_ROW_REASON], "d", "4,oops")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1009876543210987655, 2, None]),
        pa.array([1.0, 2.5, None]),
        pa.array([Decimal("1.00"), Decimal("2.50"), None]),
        pa.array([True, False, None]),
        pa.array([["1"], ["a"], None]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_dictionary_is_read_like_the_plain_column(values: pa.Array) -> None:
    table = pa.chunked_array([in_dictionary(values), in_dictionary(values[1:])])

    text = as_text(table)

    assert text.type == pa.dictionary(pa.int8(), pa.string())
    assert text.to_pylist() == as_text(pa.chunked_array([values, values[1:]])).to_pylist()
    assert as_text(table.slice(0, 0)).to_pylist() == []


def test_parts_of_a_key_that_hold_the_separator_are_refused_like_one_key_alone() -> None:
    """Joined, both rows would be one text and so one key."""
    parts = [{"carrier": "UA\x1f15", "flight": "45"}, {"carrier": "UA", "flight": "15\x1f45"}]
    rows = [{**FLIGHTS.good, **part} for part in parts]

    assert_same(rows, FLIGHTS)
    cleaned = clean(FLIGHTS.table(rows), FLIGHTS.contract)
    assert cleaned.rejected["reasons"].to_pylist() == [[f"{FLIGHTS.contract.key}:unparseable"]] * 2


def test_a_nested_value_that_json_has_no_word_for_is_kept_as_its_text() -> None:
    amenities = pa.array([[Decimal("1.50")]])

    cleaned = clean(typed_table("amenities", amenities), CONTRACT, LABEL)

    assert cleaned.warnings.to_pylist() == [None]
    assert not any(cleaned.accepted[name][0].as_py() for name in AMENITIES)


def test_categories_that_the_model_does_not_know_are_rejected() -> None:
    counts = {"neighbourhood": {"Bronx": [1, 0]}, "property_type": {}}
    encoder = Encoder(CONTRACT, learn_vocabulary(CONTRACT, counts))
    raw = table_of(
        [
            LISTING,
            {**LISTING, "neighbourhood_group_cleansed": "Bronx"},
            {**LISTING, "neighbourhood_group_cleansed": "", "neighbourhood_cleansed": ""},
        ]
    )

    cleaned = clean(raw, CONTRACT, encoder=encoder)

    assert cleaned.rejected["reasons"].to_pylist() == [["neighbourhood:unknown"], ["neighbourhood:missing"]]
    assert cleaned.accepted["neighbourhood"].to_pylist() == ["Bronx"]


def test_an_empty_table_gives_empty_parts() -> None:
    cleaned = clean(table_of([]), CONTRACT, LABEL)

    assert (len(cleaned.accepted), len(cleaned.rejected), len(cleaned.warnings)) == (0, 0, 0)


def test_a_list_that_cannot_be_read_makes_its_fields_missing() -> None:
    """Not false, which is what the list of a record without any says."""
    raw = table_of([{**LISTING, "amenities": text} for text in ('["Wifi"]', '["Wifi", "Breakf', "see text", "", "NA")])

    cleaned = clean(raw, CONTRACT, LABEL)

    assert cleaned.accepted["wifi"].to_pylist() == [True, None, None, False, False]
    assert cleaned.accepted["tv"].to_pylist() == [False, None, None, False, False]
    assert cleaned.warnings.to_pylist() == [None, ["amenities:unparseable"], ["amenities:unparseable"], None, None]
    matrix = encoder_of(CONTRACT, cleaned.accepted.to_pylist()).table(cleaned.accepted)
    assert np.isnan(matrix[:, CONTRACT.features.index("wifi")]).tolist() == [False, True, True, False, False]


WORDS = ["NA", "N/A", "NULL", "null", "\\N", "None", "nan", "NaN", "<NA>", "(null)", "#N/A", " na "]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_nothing_is_missing(word: str) -> None:
    row = {**LISTING, "neighbourhood_group_cleansed": word, "bathrooms_text": word, "bathrooms": "2.5"}
    optional = dict.fromkeys(("property_type", "bedrooms", "beds", "amenities"), word)

    cleaned = clean(table_of([{**row, **optional}, {**LISTING, "price": word, "id": word}]), CONTRACT, LABEL)

    (accepted,) = cleaned.accepted.to_pylist()
    assert (accepted["neighbourhood"], accepted["bathrooms"]) == ("Bedford-Stuyvesant", 2.5)
    assert [accepted[name] for name in ("property_type", "bedrooms", "beds", "tv")] == [None, None, None, False]
    assert cleaned.warnings.to_pylist() == [["neighbourhood:other_column", "bathrooms:other_column"]]
    (rejected,) = cleaned.rejected.to_pylist()
    assert rejected["reasons"] == ["id:missing", "price:missing"]
    assert rejected["price"] == word


def test_a_place_that_is_really_called_none_can_be_kept() -> None:
    raw = table_of([{**LISTING, "neighbourhood_group_cleansed": "None", "property_type": "NA"}])

    (accepted,) = clean(raw, CONTRACT, LABEL, missing_values=("NA",)).accepted.to_pylist()

    assert (accepted["neighbourhood"], accepted["property_type"]) == ("None", None)


def test_a_word_that_the_contract_allows_is_a_value() -> None:
    fields = [
        replace(item, allowed=("None", "Villa")) if item.name == "property_type" else item for item in CONTRACT.fields
    ]
    contract = replace(CONTRACT, fields=tuple(fields))

    cleaned = clean(table_of([{**LISTING, "property_type": "None"}]), contract, LABEL)

    assert cleaned.accepted["property_type"].to_pylist() == ["None"]


def test_a_rule_that_could_read_a_word_is_not_asked() -> None:
    def beds(raw: str) -> float:
        return 0.0 if raw == "None" else float(raw)

    fields = [replace(item, read=beds) if item.name == "beds" else item for item in CONTRACT.fields]

    cleaned = clean(table_of([{**LISTING, "beds": "None"}]), replace(CONTRACT, fields=tuple(fields)), LABEL)

    assert cleaned.accepted["beds"].to_pylist() == [None]


def test_a_field_or_list_without_a_column_is_missing_with_a_warning() -> None:
    cleaned = clean(table_of([LISTING, LISTING]).drop_columns(["amenities", "beds"]), CONTRACT, LABEL)

    assert (cleaned.accepted["wifi"].to_pylist(), cleaned.accepted["beds"].to_pylist()) == ([None] * 2, [None] * 2)
    assert cleaned.warnings.to_pylist() == [["amenities:no_column", "beds:no_column"]] * 2


def test_one_error_names_all_missing_columns_and_the_kind_of_the_table() -> None:
    with pytest.raises(ContractError, match='columns "id", "room_type", "property_type" are missing'):
        CONTRACT.choose_columns([name for name in CONTRACT.raw_columns if name not in MISSING_THREE], "a.csv")
    with pytest.raises(ContractError, match="This is Inside Airbnb's summary file: take the detailed one"):
        CONTRACT.choose_columns(["id", "neighbourhood_group", "minimum_nights", "calculated_host_listings_count"], "a")


MISSING_THREE = ("id", "room_type", "property_type")


def test_a_rule_need_not_expect_the_words_that_mean_nothing() -> None:
    contract = with_rule("beds", {"one": 1.0, "two": 2.0}.__getitem__)

    cleaned = clean(table_of([{**LISTING, "beds": text} for text in ("one", "n/a", "two")]), contract)

    assert cleaned.accepted["beds"].to_pylist() == [1.0, None, 2.0]


@pytest.mark.parametrize("error", [KeyError, StopIteration, TypeError])
def test_a_rule_that_raises_what_rules_do_not_raise_is_named_with_its_text(error: type[Exception]) -> None:
    def read(raw: str) -> float:
        if raw == "12 parsecs":
            raise error
        return float(raw)

    contract = with_rule("beds", read)

    with pytest.raises(ContractError, match=f"beds: its rule raised {error.__name__} for '12 parsecs'"):
        clean(table_of([{**LISTING, "beds": beds} for beds in ("1", "12 parsecs", "3")]), contract, contract.label)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_a_rule_reads_as_nothing_is_unparseable(value: float | None) -> None:
    contract = with_rule("latitude", lambda raw: value if raw == "x" else float(raw))

    cleaned = clean(table_of([LISTING, {**LISTING, "latitude": "x"}]), contract, contract.label)

    reason = "out_of_range" if value == float("inf") else "unparseable"
    assert (len(cleaned.accepted), cleaned.rejected["reasons"].to_pylist()) == (1, [[f"latitude:{reason}"]])


def test_an_item_that_a_rule_of_a_list_cannot_read_does_not_match() -> None:
    contract = with_rule("tv", lambda item: {"TV": 1}[item] if item != "odd" else int(item))

    cleaned = clean(table_of([{**LISTING, "amenities": '["odd"]'}]), contract, contract.label)

    assert cleaned.accepted["tv"].to_pylist() == [False]


def with_rule(name: str, read: Any) -> Contract:
    fields = tuple(replace(item, read=read) if item.name == name else item for item in CONTRACT.fields)
    return replace(CONTRACT, fields=fields)
