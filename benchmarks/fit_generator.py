"""Fit the generator's figures to real listings: `python -m benchmarks.fit_generator --listings NEW_YORK --cities
OTHERS…`.

Reads New York's raw listings for everything that bears on the price, and other cities' for what New York's file has
lost (full amenity lists, bathroom words). Writes counts, shares, effects and quantiles: no row leaves this script.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from transforms.clean import clean
from transforms.listings import CONTRACT, ROOM_TYPES
from transforms.listings.amenities import is_amenity
from transforms.listings.generate.model import (
    FLAGS,
    MOST_ACCOMMODATES,
    MOST_BEDROOMS,
    MOST_BEDS,
    MOST_HALF_BATHS,
    TERM_SIZES,
    Codes,
    Floats,
    Listings,
    price_terms,
)
from transforms.readers import list_of_texts

CELL_ROWS = 90
"""A cell of the map is split while both halves keep about this many listings."""
RARE_PROPERTY = 10
RIDGE = 4.0
# Not to the very ends: the extremes of a few must not become the tail of many.
PERCENTILES = np.linspace(0.5, 99.5, 41)
# Trees explain more of the real prices than a sum does: with this factor they do as well on generated ones (accuracy
# about 0.70).
NOISE = 0.92
# Known of the whole file, which the notebook cut: 16 % of its rows lacked bedrooms, beds or bathrooms.
MESS = {"no_bedrooms": 0.13, "no_beds": 0.05, "no_bathrooms": 0.005, "tail": 0.25}
# Average length of an amenity list in New York, and its spread in the other cities.
ITEMS_MEAN, ITEMS_SPREAD = 22.2, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listings", type=Path, required=True, help="raw listings of New York, CSV or CSV.gz")
    parser.add_argument("--cities", type=Path, nargs="+", required=True, help="raw listings of other cities")
    parser.add_argument("--out", type=Path, default=Path("transforms/listings/generate/listings_model.json"))
    parser.add_argument("--noise", type=float, default=NOISE, help="factor on the residuals of the price")
    options = parser.parse_args()
    data = fit(_read(options.listings), [_read(path) for path in options.cities], options.noise)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace('],"', '],\n"') + "\n"
    options.out.write_text(text, "utf-8")
    print(f"{options.out}: {len(text.encode()) / 1000:.0f} kB")


def fit(raw: pa.Table, cities: list[pa.Table], noise: float) -> dict[str, Any]:
    """Everything that `ListingsModel` needs."""
    table = clean(raw, CONTRACT, CONTRACT.label).accepted
    rows, boroughs, properties, boxes = _coded(table)
    price = table["price"].to_numpy()
    data: dict[str, Any] = {"boroughs": boroughs, "properties": properties}
    data["cells"] = {
        "boxes": np.round(boxes, 4).tolist(),
        "borough": [int(rows.borough[rows.cell == cell][0]) for cell in range(len(boxes))],
        "rooms": _counts(rows.cell, rows.room, len(boxes), len(ROOM_TYPES)),
    }
    data |= _shares(rows, len(boroughs), len(properties))
    data["price"] = _fit_price(rows, price, noise)
    data["mess"] = MESS | _bathroom_words(cities)
    data["items"] = _items(cities)
    return data


def _read(path: Path) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(
        include_columns=list(CONTRACT.raw_columns),
        column_types=dict.fromkeys(CONTRACT.raw_columns, pa.string()),
        strings_can_be_null=True,
    )
    return pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=options
    )


def _coded(table: pa.Table) -> tuple[Listings, list[str], list[str], Floats]:
    """The listings as codes, and what the codes of borough, property and cell mean."""
    boroughs = sorted(pc.unique(table["neighbourhood"]).to_pylist())
    borough = _places(table["neighbourhood"], boroughs)
    counted = Counter(table["property_type"].to_pylist())
    room = _places(table["room_type"], list(ROOM_TYPES))
    # Rare properties count as the commonest of their room type.
    common = [
        Counter(np.array(table["property_type"])[room == r].tolist()).most_common(1)[0][0]
        for r in range(len(ROOM_TYPES))
    ]
    names = [
        name if counted[name] >= RARE_PROPERTY else common[r]
        for name, r in zip(table["property_type"].to_pylist(), room, strict=True)
    ]
    properties = sorted(set(names))
    cell, boxes = _cells(borough, table["latitude"].to_numpy(), table["longitude"].to_numpy())
    bits = sum(
        (table[name].to_numpy().astype(np.int64) << i for i, name in enumerate(FLAGS)), np.zeros(len(table), np.int64)
    )
    rows = Listings(
        cell=cell,
        room=room,
        property=_places(pa.array(names), properties),
        accommodates=np.minimum(table["accommodates"].to_numpy().astype(np.int64), MOST_ACCOMMODATES),
        bedrooms=np.minimum(table["bedrooms"].to_numpy().astype(np.int64), MOST_BEDROOMS),
        beds=np.minimum(table["beds"].to_numpy().astype(np.int64), MOST_BEDS),
        half_baths=np.minimum((table["bathrooms"].to_numpy() * 2).astype(np.int64), MOST_HALF_BATHS),
        flags=bits,
        borough=borough,
    )
    return rows, boroughs, properties, boxes


def _places(column: Any, values: list[str]) -> Codes:
    codes: Codes = pc.index_in(column, value_set=pa.array(values)).to_numpy().astype(np.int64)
    return codes


def _cells(borough: Codes, latitude: Floats, longitude: Floats) -> tuple[Codes, Floats]:
    """Each row's cell, and each cell's box: the boroughs split again and again at the median of the longer side."""
    cells = np.empty(len(borough), np.int64)
    boxes: list[tuple[float, float, float, float]] = []

    def split(members: npt.NDArray[np.intp]) -> None:
        lat, lon = latitude[members], longitude[members]
        if len(members) < 2 * CELL_ROWS:
            cells[members] = len(boxes)
            # A few far ones must not blow up the box.
            boxes.append((*np.percentile(lat, [2, 98]), *np.percentile(lon, [2, 98])))
            return
        # A degree of longitude is three quarters of a degree of latitude here.
        side = lat if np.ptp(lat) > 0.76 * np.ptp(lon) else lon
        order = members[np.argsort(side, kind="stable")]
        split(order[: len(order) // 2])
        split(order[len(order) // 2 :])

    for code in range(borough.max() + 1):
        split(np.flatnonzero(borough == code))
    return cells, np.array(boxes)


def _counts(keys: Codes, values: Codes, key_count: int, value_count: int) -> list[list[int]]:
    counts: list[list[int]] = (
        np.bincount(keys * value_count + values, minlength=key_count * value_count)
        .reshape(key_count, value_count)
        .tolist()
    )
    return counts


def _shares(rows: Listings, boroughs: int, properties: int) -> dict[str, Any]:
    """How the qualities follow from each other, in the order in which they are drawn."""
    rooms, guests, bedrooms = len(ROOM_TYPES), MOST_ACCOMMODATES + 1, MOST_BEDROOMS + 1
    patterns, place = np.unique(rows.flags, return_inverse=True)
    where = rows.borough * rooms + rows.room
    return {
        "flag_patterns": patterns.tolist(),
        "shares": {
            "property": _counts(where, rows.property, boroughs * rooms, properties),
            "accommodates": _counts(rows.property, rows.accommodates, properties, guests),
            "bedrooms": _pooled(
                _counts(rows.room * guests + rows.accommodates, rows.bedrooms, rooms * guests, bedrooms), guests
            ),
            "beds": _pooled(
                _counts(rows.accommodates * bedrooms + rows.bedrooms, rows.beds, guests * bedrooms, MOST_BEDS + 1),
                bedrooms,
            ),
            "half_baths": _pooled(
                _counts(rows.room * bedrooms + rows.bedrooms, rows.half_baths, rooms * bedrooms, MOST_HALF_BATHS + 1),
                bedrooms,
            ),
            "flags": _counts(where, place, boroughs * rooms, len(patterns)),
        },
    }


def _pooled(counts: list[list[int]], inner: int) -> list[list[int]]:
    """Counts [outer * inner, values]; a key that never occurred, but may be drawn, takes those of its inner half."""
    table = np.array(counts).reshape(-1, inner, len(counts[0]))
    filled: list[list[int]] = (
        np.where(table.any(axis=2, keepdims=True), table, table.sum(axis=0)).reshape(-1, len(counts[0])).tolist()
    )
    return filled


def _fit_price(rows: Listings, price: Floats, noise: float) -> dict[str, Any]:
    """A ridge regression of the log price on one-hot terms, and the residuals by level of the expected price."""
    terms = price_terms(rows)
    sizes = {name: TERM_SIZES.get(name, int(codes.max()) + 1) for name, codes in terms.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    columns = np.stack([codes + starts[name] for name, codes in terms.items()], axis=1)
    log_price = np.log(price)
    effects = _ridge(columns, log_price - log_price.mean(), sum(sizes.values()))
    expected = log_price.mean() + effects[columns].sum(axis=1)
    residual = log_price - expected
    levels = np.quantile(expected, np.arange(1, 10) / 10)
    level = np.searchsorted(levels, expected)
    bounds = [100.0, 200.0]
    band = np.searchsorted(bounds, price)
    return {
        "intercept": round(float(log_price.mean()), 4),
        "effects": {
            name: np.round(effects[starts[name] : starts[name] + size], 3).tolist() for name, size in sizes.items()
        },
        "levels": np.round(levels, 3).tolist(),
        "residuals": [np.round(np.percentile(residual[level == i], PERCENTILES), 3).tolist() for i in range(10)],
        "noise": noise,
        "last_digits": [np.bincount((price[band == i] % 10).astype(np.int64), minlength=10).tolist() for i in range(3)],
        "last_digits_up_to": bounds,
    }


def _ridge(columns: Codes, target: Floats, size: int) -> Floats:
    """The effects that fit a sum of one-hot columns, shrunk a little so that cells with few listings stay near zero."""
    normal = np.zeros((size, size))
    for left in columns.T:
        for right in columns.T:
            np.add.at(normal, (left, right), 1.0)
    weights = np.zeros(size)
    for column in columns.T:
        np.add.at(weights, column, target)
    effects: Floats = np.linalg.solve(normal + RIDGE * np.eye(size), weights).astype(np.float64)
    return effects


def _bathroom_words(cities: list[pa.Table]) -> dict[str, Any]:
    """By room type: counts of no word, "shared" and "private", and the share of half-baths."""
    words = np.zeros((len(ROOM_TYPES), 3))
    halves = np.zeros(len(ROOM_TYPES))
    for table in cities:
        for room, text in zip(table["room_type"].to_pylist(), table["bathrooms_text"].to_pylist(), strict=True):
            if room in ROOM_TYPES and text:
                place = ROOM_TYPES.index(room)
                words[place, 1 if "shared" in text.lower() else 2 if "private" in text.lower() else 0] += 1
                halves[place] += "half" in text.lower()
    return {"bath_words": words.astype(int).tolist(), "half_baths": np.round(halves / words.sum(axis=1), 4).tolist()}


def _items(cities: list[pa.Table]) -> dict[str, Any]:
    """Which amenities are listed how often: the texts that stand for the flags, common ones and a tail."""
    lists = [set(list_of_texts(text)) for table in cities for text in table["amenities"].to_pylist() if text]
    counts = Counter(item for items in lists for item in sorted(items))
    variants: dict[str, Counter[str]] = {name: Counter() for name in FLAGS}
    plain: Counter[str] = Counter()
    for item, count in sorted(counts.items()):
        # A wireless item is one of wifi, not of the internet besides.
        flags = [name for name in FLAGS if is_amenity(item, name)]
        for name in flags:
            if not (name == "internet" and "wifi" in flags):
                variants[name][_template(item) if name in ("tv", "wifi") else item] += count
        if not flags and count >= 5:
            plain[item] = count
    common = {item: count / len(lists) for item, count in plain.most_common(170)}
    rare = dict(plain.most_common(470)[170:])
    rare_mean = sum(rare.values()) / len(lists)
    kept = {
        name: {item: count for item, count in found.most_common(16) if count >= 3} for name, found in variants.items()
    }
    odds = {item: round(float(np.log(share / (1 - share))), 2) for item, share in common.items()}
    shift, spread = _diligence(np.array(list(odds.values())), ITEMS_MEAN - 4.3 - rare_mean, ITEMS_SPREAD)
    return {
        "variants": kept,
        "common": odds,
        "rare": rare,
        "rare_mean": round(rare_mean, 3),
        "shift": shift,
        "spread": spread,
    }


def _template(item: str) -> str:
    return re.sub(r"\d+", "{n}", item, count=1)


def _diligence(odds: Floats, mean: float, spread: float) -> tuple[float, float]:
    """Mean and spread of how much hosts list, in log odds, that give lists of this average length and spread."""
    normal = np.random.default_rng(0).normal(size=2000)
    best = (np.inf, 0.0, 0.0)
    for width in np.arange(0.4, 2.0, 0.05):
        low, high = -6.0, 3.0
        for _ in range(30):
            shift = (low + high) / 2
            lengths = (1 / (1 + np.exp(-(odds + shift + width * normal[:, None])))).sum(axis=1)
            low, high = (low, shift) if lengths.mean() > mean else (shift, high)
        best = min(best, (abs(float(lengths.std()) - spread), shift, float(width)))
    return round(best[1], 3), round(best[2], 3)


if __name__ == "__main__":
    main()
