"""Bad rows: what goes wrong in real listings, each kind named by the reason that cleaning gives for it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.listings.generate.model import Shares
from transforms.listings.generate.raw import Columns

REPEATED = "repeated"
"""The one kind that cleaning accepts: the whole row before it once more."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong in a row."""

    reason: str
    share: float
    texts: Mapping[str, tuple[str | None, ...]]
    """What the raw columns hold instead, one of the texts by chance."""


FAULTS: tuple[Fault, ...] = (
    Fault("price:missing", 4, {"price": (None, "", "  ", "N/A")}),
    Fault("price:unparseable", 2, {"price": ("call us", "$", "1.2.3,4", "$1,23,456.00", "free")}),
    Fault("price:below_minimum", 3, {"price": ("$0.00", "$1.00", "$9.00", "$9.99", "$-75.00")}),
    Fault("room_type:not_allowed", 2, {"room_type": ("Entire home", "private room", "Treehouse", "2")}),
    Fault("room_type:missing", 1, {"room_type": (None,)}),
    Fault("latitude:out_of_range", 2, {"latitude": ("406.8494", "90.0001", "-4068494")}),
    Fault("longitude:unparseable", 1, {"longitude": ("W73", "-73,95765", "73°57'W")}),
    Fault("neighbourhood:missing", 2, {"neighbourhood_group_cleansed": (None,), "neighbourhood_cleansed": (None,)}),
    Fault("accommodates:out_of_range", 1, {"accommodates": ("0", "-2", "640")}),
    Fault("id:unparseable", 1, {"id": ("5.40E+17", "#REF!", "listing")}),
    Fault(REPEATED, 1, {}),
)


def spoil(columns: Columns, share: float, rng: np.random.Generator) -> list[str]:
    """Spoil about `share` of the rows, in place; returns for each row its reason, or an empty text."""
    rows = len(columns["id"])
    kinds = Shares([fault.share for fault in FAULTS]).draw(np.zeros(rows, np.int64), rng)
    is_bad = rng.random(rows) < share
    # A row is repeated only where the one before it is sound.
    is_bad &= (kinds != len(FAULTS) - 1) | (np.roll(~is_bad, 1) & (np.arange(rows) > 0))
    for number, fault in enumerate(FAULTS):
        spoiled = np.flatnonzero(is_bad & (kinds == number))
        if fault.reason == REPEATED:
            _repeat(columns, spoiled)
        for column, texts in fault.texts.items():
            chosen = pa.array(texts, pa.string()).take(pa.array(rng.integers(0, len(texts), len(spoiled))))
            columns[column] = _replaced(columns[column], spoiled, chosen)
    reasons: list[str] = np.where(is_bad, np.array([fault.reason for fault in FAULTS])[kinds], "").tolist()
    return reasons


def _repeat(columns: Columns, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    places = np.arange(len(columns["id"]))
    places[rows] -= 1
    for name, column in columns.items():
        columns[name] = column.take(pa.array(places))


def _replaced(column: pa.Array, rows: np.ndarray[tuple[int], np.dtype[np.int64]], texts: pa.Array) -> pa.Array:
    mask = np.zeros(len(column), np.bool_)
    mask[rows] = True
    return pa.compute.replace_with_mask(column, pa.array(mask), texts)
