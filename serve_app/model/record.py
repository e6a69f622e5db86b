"""One listing as a caller sends it: typed values, read by the contract table into a record or a list of problems."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from nightprice.errors import closest
from serve_app.errors import InvalidListing, Problem
from transforms.contract import (
    AMENITIES_COLUMN,
    FIELDS,
    FIELDS_BY_NAME,
    MISSING,
    OUT_OF_RANGE,
    PRICE,
    UNPARSEABLE,
    Field,
)
from transforms.encode import STRICT, UNKNOWN, Vocabulary

UNKNOWN_FIELD = "unknown_field"
# Everything of the contract but the price, which is what is asked for.
INPUTS: tuple[Field, ...] = tuple(item for item in FIELDS if item is not PRICE)
NAMES = (*(item.name for item in INPUTS), AMENITIES_COLUMN)
FLAGS = tuple(item for item in INPUTS if item.of_items)
REQUIRED = tuple(item for item in INPUTS if item.required)

# Whole numbers beyond it may have lost digits when they were floats.
EXACT = 2**53
SHOWN_CHARACTERS = 80
SHOWN_ITEMS = 50
# Beyond them a listing is refused as a whole: to say what is wrong with a field costs more than sending it did.
MOST_FIELDS = 64

Outcome = tuple[Any, str | None]


def read_value(item: Field, value: Any) -> Outcome:
    """One typed value (of JSON, Arrow or a tensor) as a value of a field, or None with its problem.

    None, NaN and blank text are missing.

    >>> read_value(FIELDS_BY_NAME["accommodates"], 4), read_value(FIELDS_BY_NAME["accommodates"], "4")
    ((4, None), (None, 'unparseable'))
    >>> read_value(FIELDS_BY_NAME["tv"], 1)
    (True, None)
    """
    return _READERS[item.name](value)


def read_listing(listing: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """A listing as a record for `encode_record`; flags that are not given are false.

    `amenities` is a list of texts, read as in batch; an explicit flag wins. Raises InvalidListing, which names every
    wrong field, also a value that the model of this vocabulary does not know.
    """
    if not isinstance(listing, dict):
        raise InvalidListing(
            [Problem("listing", UNPARSEABLE, shown(listing), "an object with the fields of a listing")]
        )
    if len(listing) > MOST_FIELDS:
        raise InvalidListing([Problem("listing", OUT_OF_RANGE, f"{len(listing):,} fields", f"at most {MOST_FIELDS}")])
    record: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in listing.items():
        reader = _READERS.get(name)
        if reader is None:
            if name != AMENITIES_COLUMN:
                problems.append(unknown_field(name, value))
            continue
        record[name], problem = reader(value)
        if problem:
            problems.append(describe(FIELDS_BY_NAME[name], problem, value))
    problems += [describe(item, MISSING, None) for item in REQUIRED if item.name not in record]
    problems += _unknown_values(record, vocabulary)
    _add_flags(listing.get(AMENITIES_COLUMN), record, problems)
    if problems:
        raise InvalidListing(problems)
    return record


def describe(item: Field, problem: str, value: Any) -> Problem:
    """What a caller is told about one wrong field."""
    hint = closest(value, item.allowed) if item.allowed and isinstance(value, str) else ""
    return Problem(item.name, problem, None if value is None else shown(value), item.expected(), hint)


def unknown_field(name: str, value: Any) -> Problem:
    """What a caller is told about a field that listings don't have."""
    short = name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
    return Problem(
        short, UNKNOWN_FIELD, shown(value), "a field of a listing: " + ", ".join(NAMES), closest(short, NAMES)
    )


def unknown_value(name: str, value: str, vocabulary: Vocabulary) -> Problem:
    """What a caller is told about a category that the model has not learned."""
    known: Mapping[str, int] = getattr(vocabulary, name)
    listed = ", ".join(f'"{word}"' for word in list(known)[:SHOWN_ITEMS])
    return Problem(
        name, UNKNOWN, shown(value), f"one that the model knows: {listed}", closest(value[:SHOWN_CHARACTERS], known)
    )


def shown(value: Any) -> str:
    """A value for a message, as JSON and short.

    >>> shown("Flat"), shown({"a": 1})
    ('"Flat"', 'an object')
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**256:
        return "a number of many digits"
    text = (
        json.dumps(value, ensure_ascii=False) if value is None or isinstance(value, (str, int, float)) else str(value)
    )
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _unknown_values(record: Mapping[str, Any], vocabulary: Vocabulary) -> list[Problem]:
    found = [(name, record.get(name)) for name in STRICT]
    return [
        unknown_value(name, value, vocabulary)
        for name, value in found
        if value is not None and value not in getattr(vocabulary, name)
    ]


def _add_flags(amenities: Any, record: dict[str, Any], problems: list[Problem]) -> None:
    items, problem = read_amenities(amenities)
    if problem:
        problems.append(Problem(AMENITIES_COLUMN, problem, shown(amenities), "a list of texts"))
    for item in FLAGS:
        if record.get(item.name) is None:
            record[item.name] = any(map(item.read, items))


def read_amenities(value: Any) -> tuple[list[str], str | None]:
    """The texts of an `amenities` list, none if it is missing, or the problem."""
    if value is None:
        return [], None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return [], UNPARSEABLE
    return value, None


def _read_flag(item: Field, value: Any) -> Outcome:
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value), None
    return _refused(item, value)


def _read_text(item: Field, value: Any) -> Outcome:
    if not isinstance(value, str):
        return _refused(item, value)
    if not value.strip():
        return _refused(item, None)
    return _checked(item, item.read(value))


def _read_integer(item: Field, value: Any) -> Outcome:
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return _refused(item, value)
    return _checked(item, value)


def _read_number(item: Field, value: Any) -> Outcome:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:  # noqa: PLR0124 (NaN)
        return _refused(item, value)
    found, problem = _checked(item, value)
    if problem:
        return None, problem
    # As batch stores it: a field of 32 bits holds the nearest number of 32 bits.
    return (float(np.float32(found)) if item.type == pa.float32() else float(found)), None


def _refused(item: Field, value: Any) -> Outcome:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, MISSING if item.required else None
    return None, UNPARSEABLE


def _checked(item: Field, value: Any) -> Outcome:
    problem = item.problem(value)
    return (None, problem) if problem else (value, None)


def _reader(item: Field) -> Callable[[Any], Outcome]:
    if pa.types.is_boolean(item.type):
        return partial(_read_flag, item)
    if pa.types.is_string(item.type):
        return partial(_read_text, item)
    return partial(_read_integer if pa.types.is_integer(item.type) else _read_number, item)


_READERS: dict[str, Callable[[Any], Outcome]] = {item.name: _reader(item) for item in INPUTS}
