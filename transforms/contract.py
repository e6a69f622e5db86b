"""The contract of a listing: one table that everything else follows from.

Cleaning in batch, the reasons of rejected rows, the HTTP model and its messages, the processed schema and
the generated documentation are all derived from `FIELDS`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from nightprice.errors import ContractError, closest
from transforms.listings import rules as values
from transforms.listings.amenities import AMENITIES, amenities_from_text, is_amenity

# Raise it with every change of FIELDS that makes processed data or models incompatible.
CONTRACT_VERSION = 1

# In the notebook's order, which is the order of their codes: 1, 2, 3, 4.
ROOM_TYPES = ("Shared room", "Private room", "Entire home/apt", "Hotel room")

# One raw column holds a list that many fields are read from.
AMENITIES_COLUMN = "amenities"

MISSING = "missing"
UNPARSEABLE = "unparseable"
OUT_OF_RANGE = "out_of_range"
NOT_ALLOWED = "not_allowed"
BELOW_MINIMUM = "below_minimum"


@dataclass(frozen=True)
class Field:
    """One value of a listing: where it comes from, how one raw text is read, and what it may be."""

    name: str
    columns: tuple[str, ...]
    """Raw columns; the first that is not blank in a row counts."""
    read: Callable[[str], Any]
    """One raw text (for `of_items`: one item of the list) to a value; ValueError if it can't be read."""
    type: pa.DataType
    description: str
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    required: bool = False
    of_items: bool = False
    """Read from a list of texts: true if `read` is true of any item, false without a list."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value that was read, or None."""
        if self.allowed and value not in self.allowed:
            return NOT_ALLOWED
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return OUT_OF_RANGE
        return None

    def expected(self) -> str:
        """What is allowed, in words: for messages and documentation.

        >>> FIELDS_BY_NAME["accommodates"].expected()
        'a whole number from 1 to 64'
        """
        if self.allowed:
            return "one of " + ", ".join(f'"{value}"' for value in self.allowed)
        if pa.types.is_boolean(self.type):
            return "0, 1, false or true"
        if pa.types.is_string(self.type):
            return "text"
        kind = "a whole number" if pa.types.is_integer(self.type) else "a number"
        if self.low is not None and self.high is not None and self.high < 2**53:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return f"{kind} of at least {self.low:g}" if self.low is not None else kind


def _amenity(name: str, description: str) -> Field:
    return Field(name, (AMENITIES_COLUMN,), partial(is_amenity, name=name), pa.bool_(), description, of_items=True)


PRICE = Field(
    "price", ("price",), values.price, pa.float64(), "Price of one night, in the data's currency.", required=True
)

FIELDS: tuple[Field, ...] = (
    Field("id", ("id",), values.integer, pa.int64(), "Number of the listing.", low=1, high=2**63 - 1, required=True),
    Field(
        "neighbourhood",
        ("neighbourhood_group_cleansed", "neighbourhood_cleansed"),
        values.text,
        pa.string(),
        "Borough or, in cities without boroughs, neighbourhood.",
        required=True,
    ),
    Field(
        "room_type",
        ("room_type",),
        values.text,
        pa.string(),
        "What the guest has to themselves.",
        allowed=ROOM_TYPES,
        required=True,
    ),
    Field(
        "property_type", ("property_type",), values.text, pa.string(), "Kind of building and room, in the host's words."
    ),
    Field(
        "accommodates",
        ("accommodates",),
        values.integer,
        pa.int16(),
        "Number of guests.",
        low=1,
        high=64,
        required=True,
    ),
    Field(
        "bathrooms",
        ("bathrooms_text", "bathrooms"),
        values.bathrooms,
        pa.float32(),
        "Number of bathrooms, a half-bath as 0.5.",
        low=0,
        high=50,
    ),
    Field("bedrooms", ("bedrooms",), values.number, pa.float32(), "Number of bedrooms.", low=0, high=50),
    Field("beds", ("beds",), values.number, pa.float32(), "Number of beds.", low=0, high=100),
    Field("latitude", ("latitude",), values.number, pa.float64(), "Degrees north.", low=-90, high=90, required=True),
    Field("longitude", ("longitude",), values.number, pa.float64(), "Degrees east.", low=-180, high=180, required=True),
    _amenity("tv", "A television."),
    _amenity("internet", "Any connection, wireless or by cable."),
    _amenity("air_conditioning", "Air conditioning, built in or portable."),
    _amenity("kitchen", "A kitchen or kitchenette."),
    _amenity("heating", "Heating that is built in."),
    _amenity("wifi", "A wireless connection."),
    _amenity("elevator", "An elevator in the building."),
    _amenity("breakfast", "Breakfast is offered."),
    PRICE,
)
FIELDS_BY_NAME = {item.name: item for item in FIELDS}
assert set(AMENITIES) <= set(FIELDS_BY_NAME)

# The 17 inputs of a model, in the order of its feature vector.
FEATURES: tuple[str, ...] = tuple(item.name for item in FIELDS if item.name not in ("id", "price"))
CATEGORY = "price_category"

# Every raw column that is ever read: sources skip the others.
RAW_COLUMNS: tuple[str, ...] = tuple(dict.fromkeys(column for item in FIELDS for column in item.columns))


@dataclass(frozen=True)
class Pricing:
    """How prices become categories. Other cities have other money: it travels with datasets and models."""

    bins: tuple[float, ...] = (90.0, 180.0, 400.0)
    """Upper bounds, inclusive, of every category but the last, in ascending order."""
    labels: tuple[str, ...] = ("Low", "Mid", "High", "Lux")
    minimum: float = 10.0
    """A lower price is no price: the row is rejected."""

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.bins) + 1 or len(set(self.labels)) != len(self.labels):
            raise ContractError(
                f"{len(self.bins)} bins need {len(self.bins) + 1} different labels, but there are {len(self.labels)}: "
                f"{', '.join(self.labels)}. Set as many labels as bins plus one."
            )
        if not all(label.strip() for label in self.labels):
            raise ContractError("A label is blank. Give every category a name.")
        # Written so that a NaN fails too.
        if not all(low < high for low, high in pairwise((self.minimum, *self.bins, math.inf))):
            raise ContractError(
                f"The minimum price {self.minimum:g} and the bins {self.bins} must ascend and be finite. Put them "
                "in ascending order."
            )

    def as_json(self) -> dict[str, Any]:
        return {"bins": list(self.bins), "labels": list(self.labels), "minimum": self.minimum}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Pricing":
        return cls(tuple(map(float, data["bins"])), tuple(data["labels"]), float(data["minimum"]))


def price_category(price: float, pricing: Pricing) -> str:
    """The category of a price: (…, 90] Low, (90, 180] Mid, (180, 400] High, above that Lux.

    The notebook's open lower bound lost every price of exactly the minimum; here it belongs to the first category.

    >>> [price_category(price, Pricing()) for price in (10, 90, 90.5, 400, 1234)]
    ['Low', 'Low', 'Mid', 'High', 'Lux']
    """
    return pricing.labels[sum(price > bound for bound in pricing.bins)]


def price_problem(value: float, pricing: Pricing) -> str | None:
    """What is wrong with a price under these settings, or None."""
    return BELOW_MINIMUM if value < pricing.minimum else None


def accepted_schema(with_price: bool = True) -> pa.Schema:
    """The schema of accepted rows: the fields in order, then the category."""
    fields = [pa.field(item.name, item.type) for item in FIELDS if with_price or item is not PRICE]
    return pa.schema([*fields, *([pa.field(CATEGORY, pa.string())] if with_price else [])])


def raw_columns(there: Sequence[str], where: str, with_price: bool = True) -> list[str]:
    """Which of the columns `there` (found at `where`) to read: every one that the contract names.

    Raises ContractError if a field has none of its raw columns or one is there twice; `with_price=False` does without
    the price.
    """
    fields = [item for item in FIELDS if with_price or item is not PRICE]
    for item in fields:
        if not set(there) & set(item.columns):
            looked_for = " or ".join(f'"{name}"' for name in item.columns)
            listed = ", ".join(sorted(there)[:100]) or "none"
            raise ContractError(
                f"{where}: column {looked_for} is missing.{closest(item.columns[0], there)} Columns there: {listed}."
            )
    wanted = {column for item in fields for column in item.columns}
    chosen = [name for name in there if name in wanted]
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ContractError(f'{where}: column "{twice[0]}" is there {chosen.count(twice[0])} times. Leave one of them.')
    return chosen


@dataclass
class Cleaned:
    """One raw row read by the contract: its values, and what was wrong, both by field name."""

    record: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_value(item: Field, raw: str | None) -> tuple[Any, str | None]:
    """One raw text as a value of a field, or None with the problem: missing, unparseable, not allowed, out of range."""
    if raw is None or not raw.strip():
        return None, MISSING if item.required else None
    try:
        value = item.read(raw)
    except ValueError:
        return None, UNPARSEABLE
    problem = item.problem(value)
    return (None, problem) if problem else (value, None)


def read_price(raw: str | None, pricing: Pricing) -> tuple[float | None, str | None]:
    """One raw price as its amount, or None with the problem."""
    value, problem = read_value(PRICE, raw)
    return value, problem or price_problem(value, pricing)


def is_warning(item: Field, problem: str) -> bool:
    """An optional value that is there but can't be read becomes missing; anything else wrong rejects the row."""
    return problem == UNPARSEABLE and not item.required


def clean_row(raw: Mapping[str, str | None], pricing: Pricing | None = None) -> Cleaned:
    """One raw row as a record: the single-value path, which `clean` follows bit by bit.

    With `pricing` the price is required and the record gets its category (training); without, price is left out.
    """
    cleaned = Cleaned()
    amenities = _read_amenities(raw.get(AMENITIES_COLUMN), cleaned.warnings)
    for item in FIELDS:
        if item is PRICE and pricing is None:
            continue
        value: Any
        if item.of_items:
            value, problem = any(map(item.read, amenities)), None
        else:
            text = next((text for name in item.columns if (text := raw.get(name)) and text.strip()), None)
            value, problem = read_price(text, pricing) if item is PRICE and pricing else read_value(item, text)
        if problem:
            (cleaned.warnings if is_warning(item, problem) else cleaned.reasons).append(f"{item.name}:{problem}")
        cleaned.record[item.name] = (
            float(np.float32(value)) if item.type == pa.float32() and value is not None else value
        )
    if pricing is not None:
        amount = cleaned.record["price"]
        cleaned.record[CATEGORY] = None if amount is None else price_category(amount, pricing)
    return cleaned


def _read_amenities(raw: str | None, warnings: list[str]) -> list[str]:
    if raw is None or not raw.strip():
        return []
    try:
        return amenities_from_text(raw)
    except ValueError:
        warnings.append(f"{AMENITIES_COLUMN}:{UNPARSEABLE}")
        return []
