"""Drawn listings printed in Inside Airbnb's raw format, mess included."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.listings import ROOM_TYPES
from transforms.listings.generate.model import ENTIRE_HOME, Codes, Listings, ListingsModel, Shares

# The layout of 2023: 75 columns, in the order of the files.
RAW_LAYOUT: tuple[str, ...] = (
    "id",
    "listing_url",
    "scrape_id",
    "last_scraped",
    "source",
    "name",
    "description",
    "neighborhood_overview",
    "picture_url",
    "host_id",
    "host_url",
    "host_name",
    "host_since",
    "host_location",
    "host_about",
    "host_response_time",
    "host_response_rate",
    "host_acceptance_rate",
    "host_is_superhost",
    "host_thumbnail_url",
    "host_picture_url",
    "host_neighbourhood",
    "host_listings_count",
    "host_total_listings_count",
    "host_verifications",
    "host_has_profile_pic",
    "host_identity_verified",
    "neighbourhood",
    "neighbourhood_cleansed",
    "neighbourhood_group_cleansed",
    "latitude",
    "longitude",
    "property_type",
    "room_type",
    "accommodates",
    "bathrooms",
    "bathrooms_text",
    "bedrooms",
    "beds",
    "amenities",
    "price",
    "minimum_nights",
    "maximum_nights",
    "minimum_minimum_nights",
    "maximum_minimum_nights",
    "minimum_maximum_nights",
    "maximum_maximum_nights",
    "minimum_nights_avg_ntm",
    "maximum_nights_avg_ntm",
    "calendar_updated",
    "has_availability",
    "availability_30",
    "availability_60",
    "availability_90",
    "availability_365",
    "calendar_last_scraped",
    "number_of_reviews",
    "number_of_reviews_ltm",
    "number_of_reviews_l30d",
    "first_review",
    "last_review",
    "review_scores_rating",
    "review_scores_accuracy",
    "review_scores_cleanliness",
    "review_scores_checkin",
    "review_scores_communication",
    "review_scores_location",
    "review_scores_value",
    "license",
    "instant_bookable",
    "calculated_host_listings_count",
    "calculated_host_listings_count_entire_homes",
    "calculated_host_listings_count_private_rooms",
    "calculated_host_listings_count_shared_rooms",
    "reviews_per_month",
)
RAW_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in RAW_LAYOUT])

Columns = dict[str, pa.Array]
Mask = npt.NDArray[np.bool_]


def print_listings(
    rows: Listings, ids: Codes, amenities: pa.Array, model: ListingsModel, rng: np.random.Generator
) -> Columns:
    """The columns of the raw format that are not all empty, as text."""
    boroughs = pa.array(model.boroughs).take(pa.array(rows.borough))
    columns = {
        "id": _texts(ids),
        "neighbourhood_cleansed": boroughs,
        "neighbourhood_group_cleansed": boroughs,
        "latitude": _texts(rows.latitude),
        "longitude": _texts(rows.longitude),
        "property_type": pa.array(model.properties).take(pa.array(rows.property)),
        "room_type": pa.array(ROOM_TYPES).take(pa.array(rows.room)),
        "accommodates": _texts(rows.accommodates),
        "bathrooms_text": _bathrooms_texts(rows, model.mess, rng),
        # A studio has no bedroom: the sites leave it empty.
        "bedrooms": _blanked(
            _texts(rows.bedrooms), (rows.bedrooms == 1) & _chance(ids, model.mess["no_bedrooms"], rng)
        ),
        "beds": _blanked(_texts(rows.beds), _chance(ids, model.mess["no_beds"], rng)),
        "amenities": amenities,
        "price": _by_value(rows.price, lambda dollars: f"${dollars:,}.00"),
    }
    return columns | _others(len(ids), rng)


def raw_table(columns: Mapping[str, pa.Array], rows: int) -> pa.Table:
    """The columns in the layout's order, the missing ones empty."""
    empty = pa.nulls(rows, pa.string())
    return pa.table([columns.get(name, empty) for name in RAW_LAYOUT], schema=RAW_SCHEMA)


def _others(rows: int, rng: np.random.Generator) -> Columns:
    """Columns that nothing reads, filled so that files have the weight and look of real ones."""

    def same(text: str) -> pa.Array:
        return pa.array([text]).take(pa.array(np.zeros(rows, np.int64)))

    reviews = rng.negative_binomial(0.4, 0.015, rows)
    return {
        "scrape_id": same("20211204143024"),
        "last_scraped": same("2021-12-04"),
        "calendar_last_scraped": same("2021-12-04"),
        "source": same("city scrape"),
        "host_id": _texts(rng.integers(2_000, 400_000_000, rows)),
        "has_availability": same("t"),
        "minimum_nights": _texts(rng.choice([1, 2, 3, 5, 7, 30], rows)),
        "maximum_nights": _texts(rng.choice([30, 90, 365, 1125], rows)),
        "availability_365": _texts(rng.integers(0, 366, rows)),
        "number_of_reviews": _texts(reviews),
        "review_scores_rating": _blanked(_texts(np.round(5 - rng.exponential(0.3, rows).clip(0, 5), 2)), reviews == 0),
    }


def _bathrooms_texts(rows: Listings, mess: Mapping[str, Any], rng: np.random.Generator) -> pa.Array:
    """Texts such as "1 bath", "1.5 shared baths", "Shared half-bath", and now and then none."""
    words = ("", "shared ", "private ")
    word = Shares(mess["bath_words"]).draw(rows.room, rng)
    is_half = rng.random(len(word)) < np.array(mess["half_baths"])[rows.room]
    half_baths = np.where(is_half & (rows.half_baths <= 2), 1, rows.half_baths)

    def text(code: int) -> str:
        halves, kind = divmod(code, len(words))
        if halves == 1:
            return f"{words[kind]}half-bath".capitalize()
        return f"{halves / 2:g} {words[kind]}bath{'' if halves == 2 else 's'}"

    texts = _by_value(half_baths * len(words) + word, text)
    return _blanked(texts, _chance(word, mess["no_bathrooms"], rng) & (rows.room != ENTIRE_HOME))


def _by_value(values: Codes, text: Callable[[int], str]) -> pa.Array:
    """Each distinct value printed once."""
    distinct, places = np.unique(values, return_inverse=True)
    return pa.array([text(value) for value in distinct.tolist()], pa.string()).take(pa.array(places))


def _texts(numbers: npt.NDArray[Any]) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _blanked(texts: pa.Array, blank: Mask) -> pa.Array:
    return pa.compute.if_else(pa.array(blank), pa.scalar(None, pa.string()), texts)


def _chance(like: Codes, share: float, rng: np.random.Generator) -> Mask:
    return rng.random(len(like)) < share
