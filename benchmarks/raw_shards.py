"""Raw listings for measurements: real ones repeated, or generated ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from transforms.listings.generate import RAW_LAYOUT, listings

SHARD_ROWS = 100_000
ROW_GROUP_ROWS = 50_000
# Long texts that nothing reads: they would only fill the disk.
LEFT_OUT = ("description", "neighborhood_overview", "host_about")
COLUMNS = tuple(name for name in RAW_LAYOUT if name not in LEFT_OUT)


def write_shards(folder: Path, rows: int, *, generated: bool = False) -> str:
    """Write `rows` raw listings with distinct ids as Parquet shards; returns what they are.

    The city files of the folder that NIGHTPRICE_TEST_DATA names, repeated; generated listings without it, or if a model
    of generated ones is to know them.
    """
    folder.mkdir(parents=True)
    cities = (
        sorted(Path(os.environ["NIGHTPRICE_TEST_DATA"]).glob("*.listings.csv.gz"))
        if "NIGHTPRICE_TEST_DATA" in os.environ and not generated
        else []
    )
    base = pa.concat_tables([_read(path) for path in cities]) if cities else None
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        stop = min(start + SHARD_ROWS, rows)
        table = _repeated(base, start, stop) if base else pa.concat_tables(_generated(start, stop))
        pq.write_table(table, folder / f"listings-{number:05d}.parquet", row_group_size=ROW_GROUP_ROWS)
    return f"{len(cities)} real city files repeated" if cities else "generated listings"


def _read(path: Path) -> pa.Table:
    """One city's listings as text, in the layout of all."""
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(RAW_LAYOUT, pa.string()),
        include_columns=list(COLUMNS),
        include_missing_columns=True,
        strings_can_be_null=True,
    )
    return pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), convert_options=options
    )


def _repeated(base: pa.Table, start: int, stop: int) -> pa.Table:
    numbers = np.arange(start, stop)
    table = base.take(pa.array(numbers % len(base)))
    # Of the length that ids have today.
    ids = pc.cast(pa.array(540_000_000_000_000_000 + numbers * 7_919), pa.string())
    return table.set_column(table.schema.get_field_index("id"), "id", ids)


def _generated(start: int, stop: int) -> Iterator[pa.Table]:
    for table, _ in listings(start, stop, bad_rows=0):
        yield table.select(list(COLUMNS))
