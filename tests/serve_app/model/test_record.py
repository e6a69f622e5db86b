"""A listing as a caller sends it: what is read, what is refused, and what is said about it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import InvalidRecord
from serve_app.model.record import RecordReader, known_example, value_reader
from tests.support.serving.models import VOCABULARY
from tests.support.serving.requests import EXAMPLE
from transforms.contract import Field
from transforms.encode import Encoder
from transforms.listings import CONTRACT
from transforms.readers import number

READER = RecordReader(Encoder(CONTRACT, VOCABULARY))


def problems(**changed: Any) -> list[Any]:
    with pytest.raises(InvalidRecord) as caught:
        READER.read({**EXAMPLE, **changed})
    return list(caught.value.problems)


def reasons(**changed: Any) -> list[str]:
    return [problem.reason for problem in problems(**changed)]


def test_the_challenge_is_read() -> None:
    record = READER.read(EXAMPLE)

    assert (record["id"], record["neighbourhood"], record["accommodates"], record["bathrooms"]) == (
        1001,
        "Brooklyn",
        4,
        2.0,
    )
    assert (record["tv"], record["elevator"], record["internet"], record["wifi"]) == (True, True, False, False)
    assert record.get("property_type") is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"id": 0}, "id:out_of_range"),
        ({"id": 2**63}, "id:out_of_range"),
        ({"id": "1001"}, "id:unparseable"),
        ({"id": 1e17}, "id:unparseable"),
        ({"id": None}, "id:missing"),
        ({"id": True}, "id:unparseable"),
        ({"neighbourhood": " "}, "neighbourhood:missing"),
        ({"neighbourhood": "Broklyn"}, "neighbourhood:unknown"),
        ({"room_type": "Flat"}, "room_type:not_allowed"),
        ({"accommodates": 65}, "accommodates:out_of_range"),
        ({"accommodates": 2.5}, "accommodates:unparseable"),
        ({"accommodates": [2]}, "accommodates:unparseable"),
        ({"beds": "2"}, "beds:unparseable"),
        ({"beds": -1}, "beds:out_of_range"),
        ({"beds": 10**400}, "beds:out_of_range"),
        ({"beds": float("inf")}, "beds:out_of_range"),
        ({"latitude": 90.1}, "latitude:out_of_range"),
        ({"longitude": float("nan")}, "longitude:missing"),
        ({"tv": 2}, "tv:unparseable"),
        ({"tv": "yes"}, "tv:unparseable"),
        ({"amenities": "TV"}, "amenities:unparseable"),
        ({"amenities": ["TV", 1]}, "amenities:unparseable"),
        ({"property_type": 7}, "property_type:unparseable"),
        ({"price": 100}, "price:unknown_field"),
    ],
)
def test_a_wrong_value_is_named_as_in_rejected_rows(changed: dict[str, Any], reason: str) -> None:
    assert reasons(**changed) == [reason]


def test_all_wrong_fields_are_named_at_once() -> None:
    assert reasons(room_type=None, beds=-1, neighbourhood="Atlantis", bath=1) == [
        "room_type:missing",
        "beds:out_of_range",
        "bath:unknown_field",
        "neighbourhood:unknown",
    ]


def test_every_required_field_is_missed() -> None:
    with pytest.raises(InvalidRecord) as caught:
        READER.read({})

    expected = [f"{item.name}:missing" for item in CONTRACT.fields if item.required and item.name != "price"]
    assert [problem.reason for problem in caught.value.problems] == expected


def test_messages_say_what_was_found_what_is_allowed_and_what_is_close() -> None:
    (unknown,) = problems(nieghbourhood="Brooklyn")
    assert 'Did you mean "neighbourhood"?' in unknown.message

    (room,) = problems(room_type="Entire home")
    assert 'found "Entire home"' in room.message
    assert '"Hotel room"' in room.message
    assert 'Did you mean "Entire home/apt"?' in room.message

    (borough,) = problems(neighbourhood="Broklyn")
    assert '"Staten Island"' in borough.message
    assert 'Did you mean "Brooklyn"?' in borough.message

    (guests,) = problems(accommodates=0)
    assert guests.message == "accommodates: found 0, expected a whole number from 1 to 64."


def test_a_long_value_is_cut() -> None:
    (problem,) = problems(room_type="x" * 10_000)

    assert len(problem.message) < 400


def test_other_forms_of_the_same_values_are_read() -> None:
    plain = READER.read(
        {**EXAMPLE, "tv": True, "accommodates": 4.0, "id": 1001.0, "neighbourhood": " Brooklyn ", "beds": 2.0}
    )

    assert plain == READER.read(EXAMPLE)


def test_amenities_are_read_as_in_batch_and_a_flag_wins() -> None:
    amenities = ["Window AC unit", "KitchenAid oven", "Fast wifi – 100 Mbps", '55" HDTV with Netflix']

    record = READER.read({**EXAMPLE, "amenities": amenities, "tv": 0, "internet": None})

    assert {name: record[name] for name in CONTRACT.features[9:]} == {
        "tv": False,
        "internet": True,
        "air_conditioning": True,
        "kitchen": False,
        "heating": False,
        "wifi": True,
        "elevator": True,
        "breakfast": False,
    }


@pytest.mark.parametrize("listing", [None, [], "text", 1, [[]]])
def test_what_is_no_object_is_refused(listing: Any) -> None:
    with pytest.raises(InvalidRecord, match="listing"):
        READER.read(listing)


def test_the_example_of_another_city_has_its_coordinates() -> None:
    names = CONTRACT.features
    rows = np.full((3, len(names)), np.nan, np.float32)
    rows[:, names.index("latitude")] = [41.3, 41.4, 41.41]
    rows[:, names.index("longitude")] = [2.1, 2.2, 2.15]
    rows[:, names.index("accommodates")] = [2, 4, 6]
    rows[:, names.index("beds")] = [5, 7, 9]

    example = known_example(CONTRACT, None, rows)

    changed = {name: value for name, value in example.items() if value != CONTRACT.example[name]}
    assert changed == {"latitude": 41.4, "longitude": 2.15, "beds": 7}


def test_a_number_beyond_every_float_cannot_be_read() -> None:
    """As in raw text, where there is no bound either."""
    distance = Field("distance", ("km",), number, pa.float32(), "How far it goes.", low=0)

    assert value_reader(distance)(10**400) == distance.read_text("1e400") == (None, "unparseable")
