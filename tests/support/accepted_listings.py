"""Accepted listings made from a seed, whose price follows from their fields, and a dataset of them on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.contract import Label
from transforms.listings import CONTRACT, ROOM_TYPES

VERSION = "20260101T000000Z-aaaaaa"
BOROUGHS = ("Bronx", "Queens", "Staten Island", "Brooklyn", "Manhattan")
TYPES = ("Room in hotel", "Entire rental unit", "Private room in home", "Castle")


def accepted_listings(rows: int, seed: int = 0, label: Label | None = None) -> pa.Table:
    """A table of accepted rows, some with missing values."""
    random = np.random.default_rng(seed)
    borough, room, accommodates = random.integers(0, 5, rows), random.integers(0, 4, rows), random.integers(1, 9, rows)
    price = 30 * np.exp(0.25 * borough + 0.2 * room + 0.15 * accommodates + random.normal(0, 0.25, rows))
    values: dict[str, Any] = {
        "id": random.permutation(rows) * 7 + 2**53,
        "neighbourhood": np.array(BOROUGHS)[borough],
        "room_type": np.array(ROOM_TYPES)[room],
        "property_type": _holes(random, np.array(TYPES, object)[random.choice(4, rows, p=[0.3, 0.4, 0.295, 0.005])]),
        "accommodates": accommodates,
        "bathrooms": _holes(random, random.integers(0, 7, rows) / 2),
        "bedrooms": _holes(random, random.integers(1, 5, rows).astype(float)),
        "beds": _holes(random, random.integers(1, 7, rows).astype(float)),
        "latitude": 40.5 + borough / 10 + random.normal(0, 0.02, rows),
        "longitude": -74 + random.normal(0, 0.1, rows),
        "price": price.round(2) + 10,
    }
    flags = {item.name: random.random(rows) < 0.5 for item in CONTRACT.fields if item.from_list}
    labels = [(label or CONTRACT.label).label_of(value) for value in values["price"]]
    schema = CONTRACT.accepted_schema()
    columns = {**values, **flags, CONTRACT.label_name: labels}
    return pa.table(
        [pa.array(columns[name], schema.field(name).type, from_pandas=True) for name in schema.names], schema=schema
    )


def _holes(random: np.random.Generator, values: Any) -> Any:
    """One value in ten missing."""
    holed = values.astype(object)
    holed[random.random(len(values)) < 0.1] = None
    return holed


def write_dataset(folder: Path, table: pa.Table, files: int = 3, **manifest: Any) -> str:
    """Write a dataset as `process` does and return its address; `manifest` replaces entries."""
    whole = {**dataset_manifest(len(table)), **manifest}
    accepted = folder / "versions" / whole["version"] / "accepted"
    accepted.mkdir(parents=True)
    size = -(-len(table) // files)
    for number in range(files):
        pq.write_table(table.slice(number * size, size), accepted / f"{number}.parquet")
    (folder / "manifest.json").write_text(json.dumps(whole))
    return str(folder)


def dataset_manifest(rows: int) -> Mapping[str, Any]:
    return {
        "version": VERSION,
        "rows": {"read": rows, "accepted": rows, "rejected": 0},
        "reasons": {},
        "warnings": {},
        "sources": [],
        "contract": CONTRACT.ref,
        "label": CONTRACT.label.as_json(),
        "settings": {},
        "code_version": "0",
        "libraries": {},
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:00:01+00:00",
        "ray_job_id": "01000000",
    }
