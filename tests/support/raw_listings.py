"""Raw listings for tests: rows of text as Inside Airbnb prints them."""

import csv
import gzip
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.listings import CONTRACT


def listing(number: int = 1, **values: str | None) -> dict[str, str | None]:
    """A good raw listing; `values` replaces columns."""
    good = {
        "id": str(2**60 + number),
        "neighbourhood_group_cleansed": "Brooklyn",
        "neighbourhood_cleansed": "Bedford-Stuyvesant",
        "room_type": "Entire home/apt",
        "property_type": "Entire loft",
        "accommodates": "3",
        "bathrooms_text": "1.5 baths",
        "bathrooms": "",
        "bedrooms": "1",
        "beds": "2",
        "latitude": "40.68494",
        "longitude": "-73.95765",
        "amenities": '["TV", "Wifi"]',
        "price": "$75.00",
    }
    return {**good, **values}


# What is harder to read: half a bath, no bedrooms, an escaped letter, a price with a comma.
LISTING = listing(
    id="1009876543210987655",
    bathrooms_text="Shared half-bath",
    bedrooms="",
    amenities='["TV", "Fast wifi \\u2013 100 Mbps"]',
    price="$1,234.00",
)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    listed = list(rows)
    return pa.table({name: pa.array([row.get(name) for row in listed], pa.string()) for name in CONTRACT.raw_columns})


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CONTRACT.raw_columns)
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_shards(folder: Path, shards: int, rows: int) -> Path:
    """A folder of Parquet shards with consecutive ids."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        pq.write_table(table_of(listing(shard * rows + row) for row in range(rows)), folder / f"{shard:03d}.parquet")
    return folder
