"""Which amenity texts of real listings count as which flag."""

import pytest

from transforms.listings.amenities import has_amenity
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


@pytest.mark.parametrize("raw", ["", "{}", "TV, Wifi", '["TV"', "[1]", "null", "[" * 100_000])
def test_anything_else_is_refused(raw: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 json's own message
        list_of_texts(raw)
