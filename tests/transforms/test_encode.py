"""The vocabulary of a model and the feature vectors."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nightprice.errors import UnknownValueError
from tests.support.raw_listings import LISTING
from tests.support.reference_clean import clean_row
from transforms.encode import RARE_BELOW, Encoder, learn_vocabulary
from transforms.listings import CONTRACT


def learned(neighbourhoods: dict[str, list[int]], property_types: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    return learn_vocabulary(CONTRACT, {"neighbourhood": neighbourhoods, "property_type": property_types})


VOCABULARY = learned(
    {"Manhattan": [10, 30, 40, 20], "Bronx": [90, 8, 2, 0], "Brooklyn": [50, 30, 15, 5]},
    {"Entire loft": [1, 1, 20, 5], "Private room": [40, 1, 0, 0], "Castle": [0, 0, 0, 2], "Cave": [1, 0, 0, 0]},
)
ENCODER = Encoder(CONTRACT, VOCABULARY)
RECORD = clean_row(LISTING, CONTRACT).record


def test_neighbourhoods_are_ordered_by_their_mean_category() -> None:
    assert VOCABULARY["neighbourhood"] == {"Bronx": 1, "Brooklyn": 2, "Manhattan": 3}


def test_rare_property_types_share_one_code() -> None:
    codes = VOCABULARY["property_type"]

    assert codes["Castle"] == codes["Cave"]
    assert len({codes["Castle"], codes["Entire loft"], codes["Private room"]}) == 3


def test_a_property_type_is_rare_below_the_bound_not_at_it() -> None:
    counts = {"At": [0, RARE_BELOW], "Below": [RARE_BELOW - 1, 0], "Under": [1, 1]}

    codes = learned({}, counts)["property_type"]

    assert codes["Below"] == codes["Under"] != codes["At"]


def test_ties_are_broken_by_name_so_that_the_order_of_learning_does_not_matter() -> None:
    one, other = {"B": [1, 1], "A": [2, 2]}, {"A": [2, 2], "B": [1, 1]}

    assert learned(one, {}) == learned(other, {})
    assert learned(one, {})["neighbourhood"] == {"A": 1, "B": 2}


def test_a_record_is_encoded_in_the_order_of_the_features() -> None:
    vector = dict(zip(CONTRACT.features, ENCODER.record(RECORD), strict=True))

    assert vector["neighbourhood"] == 2
    assert vector["room_type"] == 3
    assert vector["bathrooms"] == 0.5
    assert np.isnan(vector["bedrooms"])
    assert (vector["tv"], vector["kitchen"]) == (1.0, 0.0)
    assert vector["latitude"] == np.float32(40.68494)


def test_an_unknown_neighbourhood_is_an_error_that_names_the_closest() -> None:
    with pytest.raises(
        UnknownValueError, match=r'does not know "Broklyn"\. Did you mean "Brooklyn"\? It knows "Bronx", "Brooklyn"'
    ):
        ENCODER.record({**RECORD, "neighbourhood": "Broklyn"})


def test_an_unknown_property_type_is_missing() -> None:
    vector = ENCODER.record({**RECORD, "property_type": "Igloo"})

    assert np.isnan(vector[CONTRACT.features.index("property_type")])


def test_unknown_rows_are_found_and_missing_is_not_unknown() -> None:
    table = pa.table({"neighbourhood": ["Bronx", "Atlantis", None], "room_type": ["Hotel room"] * 3})

    assert {name: mask.tolist() for name, mask in ENCODER.unknown(table).items()} == {
        "neighbourhood": [False, True, False]
    }


def test_whole_numbers_that_no_float_holds_are_rounded_as_one_by_one() -> None:
    wide = replace(CONTRACT.by_name["accommodates"], type=pa.int64(), high=2**62)
    fields = tuple(wide if item.name == wide.name else item for item in CONTRACT.fields)
    contract = replace(CONTRACT, fields=fields)
    encoder = Encoder(contract, {name: {} for name in contract.coded if name not in contract.strict})
    table = pa.table({item.name: pa.nulls(1, item.type) for item in contract.fields})
    table = table.set_column(table.schema.get_field_index("accommodates"), "accommodates", pa.array([2**60 + 1]))

    matrix = encoder.table(table)

    assert np.array_equal(matrix[0], encoder.record({"accommodates": 2**60 + 1}), equal_nan=True)
