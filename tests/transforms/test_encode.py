"""The vocabulary of a model and the feature vectors."""

import numpy as np
import pyarrow as pa
import pytest

from nightprice.errors import UnknownValueError
from tests.support.raw_listings import LISTING
from transforms.contract import FEATURES, clean_row
from transforms.encode import Vocabulary, encode_record

VOCABULARY = Vocabulary.learn(
    {"Manhattan": [10, 30, 40, 20], "Bronx": [90, 8, 2, 0], "Brooklyn": [50, 30, 15, 5]},
    {"Entire loft": [1, 1, 20, 5], "Private room": [40, 1, 0, 0], "Castle": [0, 0, 0, 2], "Cave": [1, 0, 0, 0]},
)


def test_neighbourhoods_are_ordered_by_their_mean_category() -> None:
    assert VOCABULARY.neighbourhood == {"Bronx": 1, "Brooklyn": 2, "Manhattan": 3}


def test_rare_property_types_share_one_code() -> None:
    codes = VOCABULARY.property_type

    assert codes["Castle"] == codes["Cave"]
    assert len({codes["Castle"], codes["Entire loft"], codes["Private room"]}) == 3


def test_a_property_type_is_rare_below_the_bound_not_at_it() -> None:
    codes = Vocabulary.learn({}, {"At": [0, 3], "Below": [2, 0], "Under": [1, 1]}, rare_below=3).property_type

    assert codes["Below"] == codes["Under"] != codes["At"]


def test_ties_are_broken_by_name_so_that_the_order_of_learning_does_not_matter() -> None:
    one, other = {"B": [1, 1], "A": [2, 2]}, {"A": [2, 2], "B": [1, 1]}

    assert Vocabulary.learn(one, {}) == Vocabulary.learn(other, {})
    assert Vocabulary.learn(one, {}).neighbourhood == {"A": 1, "B": 2}


def test_a_record_is_encoded_in_the_order_of_the_features() -> None:
    vector = dict(zip(FEATURES, encode_record(clean_row(LISTING).record, VOCABULARY), strict=True))

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
        encode_record({**clean_row(LISTING).record, "neighbourhood": "Broklyn"}, VOCABULARY)


def test_an_unknown_property_type_is_missing() -> None:
    vector = encode_record({**clean_row(LISTING).record, "property_type": "Igloo"}, VOCABULARY)

    assert np.isnan(vector[FEATURES.index("property_type")])


def test_unknown_rows_are_found_and_missing_is_not_unknown() -> None:
    table = pa.table({"neighbourhood": ["Bronx", "Atlantis", None], "room_type": ["Hotel room"] * 3})

    assert {name: mask.tolist() for name, mask in VOCABULARY.unknown(table).items()} == {
        "neighbourhood": [False, True, False]
    }


def test_a_vocabulary_survives_json() -> None:
    assert Vocabulary.from_json(VOCABULARY.as_json()) == VOCABULARY
