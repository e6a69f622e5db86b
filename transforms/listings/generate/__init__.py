"""Listings like New York's, in Inside Airbnb's raw format, as many as one wants."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nightprice.errors import UsageError
from transforms.listings.generate.amenities import AmenityPrinter
from transforms.listings.generate.faults import spoil
from transforms.listings.generate.model import Codes, listings_model
from transforms.listings.generate.raw import RAW_LAYOUT, RAW_SCHEMA, print_listings, raw_table

__all__ = ["RAW_LAYOUT", "generate", "listings"]

# Chance starts anew in every block, so a listing depends on the seed and its number alone, not on shards or threads.
BLOCK_ROWS = 10_000


def generate(
    rows: int,
    out: str | Path,
    *,
    shards: int = 8,
    bad_rows: float = 0.02,
    seed: int = 0,
    groups: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write `rows` raw listings into `shards` Parquet files in the folder `out`.

    About the share `bad_rows` is spoiled in one way each. `groups=False` leaves the borough column empty, as in cities
    without boroughs. The same seed gives the same rows in the same order for any number of shards and threads.

    Returns "rows", "bad" (rows by reason, or "repeated") and "files". Raises UsageError for impossible numbers and for
    a folder that is not empty.
    """
    folder = Path(out)
    _check(rows, folder, shards, bad_rows, seed)
    folder.mkdir(parents=True, exist_ok=True)
    edges = [rows * shard // shards for shard in range(shards + 1)]
    paths = [folder / f"listings-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        tasks = [
            pool.submit(_write, path, edges[i], edges[i + 1], {"bad_rows": bad_rows, "seed": seed, "groups": groups})
            for i, path in enumerate(paths)
        ]
        try:
            counts = sum((task.result() for task in tasks), Counter())
        except BaseException:  # an interruption, a full disk: the files that were not begun must not be waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {"rows": rows, "bad": dict(sorted(counts.items())), "files": [str(path) for path in paths]}


def listings(
    start: int, stop: int, *, bad_rows: float = 0.02, seed: int = 0, groups: bool = True
) -> Iterator[tuple[pa.Table, Counter[str]]]:
    """The raw listings number `start` to `stop` (exclusive) in tables of at most BLOCK_ROWS, each with its bad rows
    by reason.
    """
    for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
        first = block * BLOCK_ROWS
        low, high = max(start - first, 0), min(stop - first, BLOCK_ROWS)
        table, reasons = _block(block, bad_rows, seed, groups)
        yield table.slice(low, high - low), Counter(reason for reason in reasons[low:high] if reason)


def _block(block: int, bad_rows: float, seed: int, groups: bool) -> tuple[pa.Table, list[str]]:
    """All rows of one block, and for each the reason why it is bad or an empty text."""
    rng = np.random.default_rng([seed, block])
    model = listings_model()
    ids = _ids(block * BLOCK_ROWS + np.arange(BLOCK_ROWS), rng)
    rows = model.draw(BLOCK_ROWS, rng)
    columns = print_listings(rows, ids, _amenities().print(rows.flags, rng), model, rng)
    if not groups:
        columns["neighbourhood_group_cleansed"] = pa.nulls(BLOCK_ROWS, pa.string())
    reasons = spoil(columns, bad_rows, rng)
    return raw_table(columns, BLOCK_ROWS), reasons


@cache
def _amenities() -> AmenityPrinter:
    return AmenityPrinter(listings_model().items)


def _ids(numbers: Codes, rng: np.random.Generator) -> Codes:
    """Distinct: the short ids of old listings, and one in five of the eighteen digits used since 2022, more than a
    float holds.
    """
    short = 2_500 + numbers * 997 + rng.integers(0, 997, len(numbers))
    long = 540_000_000_000_000_000 + numbers * 1_000_000_007 + rng.integers(0, 1_000_000_007, len(numbers))
    return np.where(rng.random(len(numbers)) < 0.2, long, short)


def _write(path: Path, start: int, stop: int, options: dict[str, Any]) -> Counter[str]:
    """One shard, whole or not at all."""
    counts: Counter[str] = Counter()
    unfinished = path.with_suffix(".unfinished")
    with pq.ParquetWriter(unfinished, RAW_SCHEMA) as writer:
        for table, bad in listings(start, stop, **options):
            writer.write_table(table)
            counts += bad
    unfinished.rename(path)
    return counts


def _check(rows: int, folder: Path, shards: int, bad_rows: float, seed: int) -> None:
    if rows < 1 or shards < 1:
        raise UsageError(f"{rows} rows in {shards} shards cannot be written: both must be at least 1.")
    if seed < 0:
        raise UsageError(f"The seed {seed} is negative: give 0 or more.")
    if not 0 <= bad_rows <= 1:
        raise UsageError(f"The share of bad rows is {bad_rows:g}: give a number from 0 to 1.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f'"{folder}" is there already and not an empty folder: name another one, or empty it.')
