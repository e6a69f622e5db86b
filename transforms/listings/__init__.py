"""The problem of the notebooks: the nightly price category of a short-term rental listing.

Everything about listings lies in this folder: the fields, the rules of their raw texts, the label, the example, and
a generator of raw listings for the demo.
"""

from functools import partial
from typing import Any

import pyarrow as pa

from transforms.contract import Bands, Contract, Field, ListColumn
from transforms.listings import rules
from transforms.listings.amenities import amenity_list, is_amenity
from transforms.readers import amount, integer, number, text

# In the notebook's order, which is the order of their codes: 1, 2, 3, 4.
ROOM_TYPES = ("Shared room", "Private room", "Entire home/apt", "Hotel room")
# (…, 90] Low, (90, 180] Mid, (180, 400] High, above that Lux. The notebook's open lower bound lost every price of
# exactly the minimum; here it belongs to the first category.
PRICE_BANDS = Bands(bins=(90.0, 180.0, 400.0), labels=("Low", "Mid", "High", "Lux"), minimum=10.0)


def _amenity(name: str, description: str) -> Field:
    read = partial(is_amenity, name=name)
    return Field(name, ("amenities",), read, pa.bool_(), description, from_list=True)


def _generate(*arguments: Any, **options: Any) -> dict[str, Any]:
    """`transforms.listings.generate.generate`, imported when it is needed: it reads a file of its own."""
    from transforms.listings.generate import generate

    return generate(*arguments, **options)


CONTRACT = Contract(
    name="listing-price",
    version=1,
    record="listing",
    records="listings",
    fields=(
        Field("id", ("id",), integer, pa.int64(), "Number of the listing.", low=1, high=2**63 - 1, required=True),
        Field(
            "neighbourhood",
            ("neighbourhood_group_cleansed", "neighbourhood_cleansed"),
            text,
            pa.string(),
            "Borough or, in cities without boroughs, neighbourhood.",
            required=True,
        ),
        Field(
            "room_type",
            ("room_type",),
            text,
            pa.string(),
            "What the guest has to themselves.",
            allowed=ROOM_TYPES,
            required=True,
        ),
        Field(
            "property_type", ("property_type",), text, pa.string(), "Kind of building and room, in the host's words."
        ),
        Field(
            "accommodates", ("accommodates",), integer, pa.int16(), "Number of guests.", low=1, high=64, required=True
        ),
        Field(
            "bathrooms",
            ("bathrooms_text", "bathrooms"),
            rules.bathrooms,
            pa.float32(),
            "Number of bathrooms, a half-bath as 0.5.",
            low=0,
            high=50,
        ),
        Field("bedrooms", ("bedrooms",), number, pa.float32(), "Number of bedrooms.", low=0, high=50),
        Field("beds", ("beds",), number, pa.float32(), "Number of beds.", low=0, high=100),
        Field("latitude", ("latitude",), number, pa.float64(), "Degrees north.", low=-90, high=90, required=True),
        Field("longitude", ("longitude",), number, pa.float64(), "Degrees east.", low=-180, high=180, required=True),
        _amenity("tv", "A television."),
        _amenity("internet", "Any connection, wireless or by cable."),
        _amenity("air_conditioning", "Air conditioning, built in or portable."),
        _amenity("kitchen", "A kitchen or kitchenette."),
        _amenity("heating", "Heating that is built in."),
        _amenity("wifi", "A wireless connection."),
        _amenity("elevator", "An elevator in the building."),
        _amenity("breakfast", "Breakfast is offered."),
        Field("price", ("price",), amount, pa.float64(), "Price of one night, in the data's currency.", required=True),
    ),
    key="id",
    target="price",
    label=PRICE_BANDS,
    label_column="price_category",
    lists=(
        ListColumn(
            "amenities", amenity_list, "What the listing offers, in the host's words; a flag that is given wins."
        ),
    ),
    # Tree after tree, the forest's sampling of features depends on their order.
    baseline=("neighbourhood", "room_type", "accommodates", "bathrooms", "bedrooms"),
    breakdown=("neighbourhood", "room_type"),
    # The payload of the challenge that the notebooks answered.
    example={
        "id": 1001,
        "accommodates": 4,
        "room_type": "Entire home/apt",
        "beds": 2,
        "bedrooms": 1,
        "bathrooms": 2,
        "neighbourhood": "Brooklyn",
        "tv": 1,
        "elevator": 1,
        "internet": 0,
        "latitude": 40.71383,
        "longitude": -73.9658,
    },
    other_tables=(
        (
            ("neighbourhood_group", "calculated_host_listings_count", "minimum_nights"),
            "This is Inside Airbnb's summary file: take the detailed one, listings.csv.gz.",
        ),
        (("recordid", "fields"), "The records lie inside `fields`: jq -c .fields FILE > FILE.jsonl."),
    ),
    generate=_generate,
)
