"""Which amenity texts of real listings count as which flag."""

import pytest

from transforms.listings.amenities import amenity_list, has_amenity
from transforms.readers import list_of_texts

COUNTS = [
    ("TV", "tv"),
    ('55" HDTV with Netflix', "tv"),
    ("50 inch TV", "tv"),
    ("TV with standard cable", "tv"),
    ("Cable TV", "tv"),
    ("Wifi", "wifi"),
    ("Fast wifi – 100 Mbps", "wifi"),
    ("Pocket wifi", "wifi"),
    ("Wifi", "internet"),
    ("Ethernet connection", "internet"),
    ("Internet", "internet"),
    ("Air conditioning", "air_conditioning"),
    ("Central air conditioning", "air_conditioning"),
    ("Window AC unit", "air_conditioning"),
    ("AC - split type ductless system", "air_conditioning"),
    ("Portable air conditioning", "air_conditioning"),
    ("Kitchen", "kitchen"),
    ("Kitchenette", "kitchen"),
    ("Private outdoor kitchen", "kitchen"),
    ("Heating", "heating"),
    ("Central heating", "heating"),
    ("Heating - split type ductless system", "heating"),
    ("Elevator", "elevator"),
    ("ELEVATOR", "elevator"),
    ("Breakfast", "breakfast"),
]
DOES_NOT_COUNT = [
    ("KitchenAid stainless steel gas stove", "kitchen"),
    ("Lake access", "air_conditioning"),
    ("Hair conditioner conditioner", "air_conditioning"),
    ("Movie theater", "heating"),
    ("Shared outdoor pool - heated", "heating"),
    ("Breakfast bar", "breakfast"),
    ("Ethernet connection", "wifi"),
    ("Wifi", "tv"),
]


@pytest.mark.parametrize(("item", "name"), COUNTS)
def test_counts(item: str, name: str) -> None:
    assert has_amenity(["Hangers", item], name)


@pytest.mark.parametrize(("item", "name"), DOES_NOT_COUNT)
def test_does_not_count(item: str, name: str) -> None:
    assert not has_amenity(["Hangers", item], name)


def test_escapes_are_decoded() -> None:
    assert list_of_texts(r'["Fast wifi \u2013 100 Mbps", "55\" HDTV"]') == ["Fast wifi – 100 Mbps", '55" HDTV']


def test_an_empty_list_has_nothing() -> None:
    assert list_of_texts("[]") == []
    assert not has_amenity([], "tv")


@pytest.mark.parametrize("raw", ["", "TV, Wifi", '["TV"', "[1]", "null", "[" * 100_000])
def test_anything_else_is_refused(raw: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 json's own message
        list_of_texts(raw)


@pytest.mark.parametrize(
    ("raw", "items"),
    [
        ('{TV,"Cable TV",Washer/Dryer}', ["TV", "Cable TV", "Washer/Dryer"]),
        ('{"Pets, on request",Wifi}', ["Pets, on request", "Wifi"]),
        (r'{"55\" HDTV","a\\b"}', ['55" HDTV', "a\\b"]),
        ("{}", []),
        ("['TV', \"Chef's kitchen\"]", ["TV", "Chef's kitchen"]),
        (r"['Fast wifi \u2013 100 Mbps', 'Chef\'s kitchen']", ["Fast wifi – 100 Mbps", "Chef's kitchen"]),
        ("('TV',)", ["TV"]),
        ("{'TV', 'Cable TV'}", ["TV", "Cable TV"]),
        ("['TV' 'Wifi'\n 'Hot water']", ["TV", "Wifi", "Hot water"]),
    ],
)
def test_lists_of_postgresql_and_python_are_read(raw: str, items: list[str]) -> None:
    assert list_of_texts(raw) == items
    assert amenity_list(raw) == items


@pytest.mark.parametrize(
    ("raw", "items"),
    [
        ("TV,Wireless Internet,Kitchen", ["TV", "Wireless Internet", "Kitchen"]),
        ("Hangers,Hot water", ["Hangers", "Hot water"]),
        ("TV, Cable TV, Hangers", ["TV", "Cable TV", "Hangers"]),
        ("tv|wifi", ["tv", "wifi"]),
        ("[TV, Cable TV]", ["TV", "Cable TV"]),
        ('TV,"Cable TV"', ["TV", "Cable TV"]),
        ("Wifi", ["Wifi"]),
    ],
)
def test_bare_lists_are_read(raw: str, items: list[str]) -> None:
    assert amenity_list(raw) == items


@pytest.mark.parametrize(
    "raw",
    [
        '["Wifi", "Breakf',
        '{TV,"Cable',
        "see text",
        "Please ask, we have much.",
        "We have wifi, heating and a kitchen",
        "{see text}",
        "[1]",
        '{"tv": true}',
        "['TV'}",
    ],
)
def test_prose_and_what_is_cut_off_are_not_lists(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a list of amenities"):
        amenity_list(raw)
