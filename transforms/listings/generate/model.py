"""What the generator knows about listings: aggregate figures of the real ones, and how listings are drawn from them.

`listings_model.json` is made by `python -m benchmarks.fit_generator`. It holds counts, shares, effects and quantiles,
never a row. Everything is drawn as small integer codes first; `transforms.listings.generate.raw` prints them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.listings import ROOM_TYPES
from transforms.listings.amenities import AMENITIES

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FLAGS = tuple(AMENITIES)
MOST_ACCOMMODATES = 16
MOST_BEDROOMS = 8
MOST_BEDS = 12
MOST_HALF_BATHS = 15
ENTIRE_HOME = 2
"""The place of "Entire home/apt" in `transforms.listings.ROOM_TYPES`."""


class Shares:
    """Counts [keys, values] to draw values from: the row of a key is its distribution."""

    def __init__(self, counts: Any) -> None:
        table = np.atleast_2d(np.asarray(counts, np.float64))
        total = np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
        self._bounds = np.cumsum(table / total, axis=1)[:, :-1] + np.arange(len(table))[:, None]
        self._values = table.shape[1]

    def draw(self, keys: Codes, rng: np.random.Generator) -> Codes:
        """One value code for each key code."""
        points = np.minimum(rng.random(len(keys)), 1 - 1e-12) + keys
        places = np.searchsorted(self._bounds.ravel(), points, side="right") - keys * (self._values - 1)
        codes: Codes = np.clip(places, 0, self._values - 1)
        return codes


@dataclass
class Listings:
    """Drawn listings, one code per row and quality."""

    cell: Codes
    room: Codes
    """Place in ROOM_TYPES."""
    property: Codes
    accommodates: Codes
    bedrooms: Codes
    beds: Codes
    half_baths: Codes
    """Bathrooms times two."""
    flags: Codes
    """Bit i: the amenity FLAGS[i]."""
    borough: Codes
    latitude: Floats = field(default_factory=lambda: np.empty(0))
    longitude: Floats = field(default_factory=lambda: np.empty(0))
    price: Codes = field(default_factory=lambda: np.empty(0, np.int64))


# How many codes the terms have that hold pairs, of which not all occur.
TERM_SIZES = {
    "room_accommodates": len(ROOM_TYPES) * (MOST_ACCOMMODATES + 1),
    "entire_bedrooms": 2 * (MOST_BEDROOMS + 1),
    "entire_half_baths": 2 * (MOST_HALF_BATHS + 1),
    "beds": MOST_BEDS + 1,
}


def price_terms(rows: Listings) -> dict[str, Codes]:
    """The terms that add up to a log price: for each its name and every row's code."""
    entire = (rows.room == ENTIRE_HOME).astype(np.int64)
    terms = {
        "cell": rows.cell,
        "borough_room": rows.borough * 4 + rows.room,
        "room_accommodates": rows.room * (MOST_ACCOMMODATES + 1) + rows.accommodates,
        "entire_bedrooms": entire * (MOST_BEDROOMS + 1) + np.minimum(rows.bedrooms, MOST_BEDROOMS),
        "beds": np.minimum(rows.beds, MOST_BEDS),
        "entire_half_baths": entire * (MOST_HALF_BATHS + 1) + np.minimum(rows.half_baths, MOST_HALF_BATHS),
        "property": rows.property,
    }
    return terms | {name: (rows.flags >> i & 1) * (1 + entire) for i, name in enumerate(FLAGS)}


class ListingsModel:
    """Draws listings; all chance comes from the generator that is passed."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.boroughs: list[str] = data["boroughs"]
        self.properties: list[str] = data["properties"]
        self.mess: dict[str, Any] = data["mess"]
        self.items: dict[str, Any] = data["items"]
        cells = np.array(data["cells"]["boxes"])
        self._corners = cells
        self._cell_borough = np.array(data["cells"]["borough"])
        rooms = np.array(data["cells"]["rooms"])
        self._cells = Shares(rooms.sum(axis=1))
        self._rooms = Shares(rooms)
        self._patterns = np.array(data["flag_patterns"])
        self._shares = {name: Shares(counts) for name, counts in data["shares"].items()}
        price = data["price"]
        self._intercept = float(price["intercept"])
        self._effects = {name: np.array(values) for name, values in price["effects"].items()}
        self._levels = np.array(price["levels"])
        self._residuals = np.array(price["residuals"])
        self._noise = float(price["noise"])
        self._endings = [Shares(counts) for counts in price["last_digits"]]
        self._ending_bounds = np.array(price["last_digits_up_to"])

    def draw(self, rows: int, rng: np.random.Generator) -> Listings:
        """`rows` listings with prices of at least 10."""
        zeros = np.zeros(rows, np.int64)
        cell = self._cells.draw(zeros, rng)
        room = self._rooms.draw(cell, rng)
        borough = self._cell_borough[cell]
        kind = self._shares["property"].draw(borough * 4 + room, rng)
        accommodates = self._shares["accommodates"].draw(kind, rng)
        bedrooms = self._shares["bedrooms"].draw(room * (MOST_ACCOMMODATES + 1) + accommodates, rng)
        beds = self._shares["beds"].draw(accommodates * (MOST_BEDROOMS + 1) + bedrooms, rng)
        half_baths = self._shares["half_baths"].draw(room * (MOST_BEDROOMS + 1) + bedrooms, rng)
        flags = self._patterns[self._shares["flags"].draw(borough * 4 + room, rng)]
        drawn = Listings(cell, room, kind, accommodates, bedrooms, beds, half_baths, flags, borough)
        low_lat, high_lat, low_lon, high_lon = self._corners[cell].T
        drawn.latitude = np.round(rng.uniform(low_lat, high_lat), 5)
        drawn.longitude = np.round(rng.uniform(low_lon, high_lon), 5)
        drawn.price = self._prices(drawn, rng)
        return drawn

    def expected_log_price(self, rows: Listings) -> Floats:
        """The part of the log price that follows from a listing's qualities."""
        total: Floats = np.full(len(rows.cell), self._intercept)
        for name, codes in price_terms(rows).items():
            total += self._effects[name][codes]
        return total

    def _prices(self, rows: Listings, rng: np.random.Generator) -> Codes:
        """Whole dollars: the expected price, a residual as wide as it is at that level, and a last digit that
        people like.
        """
        expected = self.expected_log_price(rows)
        level = np.searchsorted(self._levels, expected)
        points = rng.random(len(expected)) * (self._residuals.shape[1] - 1)
        below = points.astype(np.int64)
        part = points - below
        residual = (
            self._residuals[level, below] * (1 - part)
            + self._residuals[level, np.minimum(below + 1, self._residuals.shape[1] - 1)] * part
        )
        price = np.exp(expected + self._noise * residual)
        # The notebooks lost every price of 1,000 and more, so the fitted rows end below: the top gets its tail back.
        price = np.where(price > 600, price * np.exp(rng.exponential(self.mess["tail"], len(price))), price)
        digit = np.choose(
            np.searchsorted(self._ending_bounds, price),
            [shares.draw(np.zeros(len(price), np.int64), rng) for shares in self._endings],
        )
        dollars: Codes = np.clip(np.round((price - digit) / 10) * 10 + digit, 10, 99_999).astype(np.int64)
        return dollars


@cache
def listings_model() -> ListingsModel:
    """The model that comes with the package."""
    return ListingsModel(
        json.loads(files("transforms.listings.generate").joinpath("listings_model.json").read_text("utf-8"))
    )
