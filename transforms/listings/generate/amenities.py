"""Amenity lists as the raw column prints them: about 22 items, with escapes."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.listings.generate.model import FLAGS, Codes, Shares

# What stands for the {n} in an item such as `{n}" HDTV with Netflix`.
_NUMBERS = {"tv": (24, 32, 40, 42, 43, 46, 48, 50, 52, 55, 58, 60, 65, 70, 75, 85), "wifi": tuple(range(13, 600, 7))}


class AmenityPrinter:
    """Prints amenity lists for flags: the items that a flag stands for, common items, and a tail of rare ones."""

    def __init__(self, items: dict[str, Any]) -> None:
        texts: list[str] = []
        self._variants: dict[str, tuple[int, Shares]] = {}
        for name in FLAGS:
            expanded = list(_expanded(items["variants"][name], _NUMBERS.get(name, (1, 2, 3))))
            self._variants[name] = len(texts), Shares([share for _, share in expanded])
            texts += [text for text, _ in expanded]
        self._common_at = len(texts)
        texts += list(items["common"])
        self._rare_at = len(texts)
        texts += list(items["rare"])
        self._rare = Shares(list(items["rare"].values()))
        # Log odds of each common item for a host who lists as much as the average one.
        self._odds = np.array(list(items["common"].values()), np.float32)
        self._shift, self._spread = items["shift"], items["spread"]
        self._rare_mean = items["rare_mean"]
        # As json.dumps prints them: é becomes \\u00e9, a quote \\".
        self._printed = pa.array([json.dumps(text)[1:-1] for text in texts], pa.string())

    def print(self, flags: Codes, rng: np.random.Generator) -> pa.Array:
        """For each row a JSON list as text, its items in no order."""
        rows, codes = zip(*self._parts(flags, rng), strict=True)
        row, code = np.concatenate(rows), np.concatenate(codes)
        order = np.argsort(row + rng.random(len(row)))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(flags)))])
        items = self._printed.take(pa.array(code[order]))
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
        joined = pc.binary_join_element_wise('["', pc.binary_join(lists, '", "'), '"]', "")
        return pc.if_else(pa.array(np.diff(offsets) == 0), "[]", joined)

    def _parts(self, flags: Codes, rng: np.random.Generator) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Rows and item codes, kind by kind."""
        for i, name in enumerate(FLAGS):
            # A wireless connection is an internet connection already.
            chosen = flags >> i & 1 & ~(flags >> FLAGS.index("wifi")) if name == "internet" else flags >> i & 1
            rows = np.flatnonzero(chosen)
            start, shares = self._variants[name]
            yield rows, start + shares.draw(np.zeros(len(rows), np.int64), rng)
        diligence = rng.normal(self._shift, self._spread, len(flags)).astype(np.float32)
        # A host who lists nothing of the eight lists nothing at all.
        chance = (flags != 0)[:, None] / (1 + np.exp(-(diligence[:, None] + self._odds)))
        # Sixteen bits are chance enough, and drawing is most of the time.
        rows, items = np.nonzero(rng.integers(0, 1 << 16, chance.shape, np.uint16) < chance * 65536)
        yield rows, self._common_at + items
        rare = np.repeat(np.arange(len(flags)), rng.poisson(self._rare_mean, len(flags)) * (flags != 0))
        yield rare, self._rare_at + self._rare.draw(np.zeros(len(rare), np.int64), rng)


def _expanded(variants: dict[str, float], numbers: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    for text, share in variants.items():
        if "{n}" in text:
            yield from ((text.replace("{n}", str(number)), share / len(numbers)) for number in numbers)
        else:
            yield text, share
