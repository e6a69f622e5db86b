"""Parquet, in batches whose memory is bounded whatever the file says of itself."""

import resource
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.io.stores import Columns, StoreError
from transforms.clean import as_text, decoded

BATCH_ROWS = 32_768
# A table of fewer rows, where rows are long.
BATCH_BYTES = 64 * 2**20
# What one batch may take until it is a table, beyond the file as it is stored. Pages of ordinary files have a MiB, but
# there are writers that make one of a whole column.
UNPACKING_BYTES = 2**30
# So much smaller batches are tried after one that takes more, down to a row, but no more of a row group than this: each
# takes 0.1 ms.
SMALLER = 8
MOST_BATCHES = 100_000
# A footer takes some ten times its size once it is read, a forged one 200 times.
LARGEST_FOOTER = 8 * 2**20
# What the system counts as this process's memory, in pages; Linux has it.
_STATM = Path("/proc/self/statm")
_LIMITED = threading.Lock()


def read_parquet(
    filesystem: fs.FileSystem, path: str, columns: Columns, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    """The chosen columns as they are stored, texts plainly; `row_groups` None reads all.

    Raises StoreError for a file that takes more than UNPACKING_BYTES for a row, or has fewer rows than it says.
    """
    with filesystem.open_input_file(path) as file, open_parquet(file, path) as parquet:
        chosen = columns(parquet.schema_arrow.names, path)
        groups = list(range(parquet.metadata.num_row_groups) if row_groups is None else row_groups)
        if not parquet.metadata.num_rows:
            yield parquet.schema_arrow.empty_table().select(chosen)
        else:
            limit = UNPACKING_BYTES + min(file.size(), UNPACKING_BYTES)
            for table in _tables(parquet, groups, chosen, _Allowance(limit), path):
                yield from _pieces(table)


def open_parquet(file: pa.NativeFile, path: str) -> pq.ParquetFile:
    """A file whose footer is read. Raises StoreError for one that is too large."""
    if file.size() > LARGEST_FOOTER:
        # The footer's size and four letters are the last that a file has.
        file.seek(file.size() - 8)
        size = int.from_bytes(file.read(4), "little")
        if size > LARGEST_FOOTER:
            raise StoreError(
                f'"{path}" has a footer of {size / 2**20:,.0f} MiB; it may have {LARGEST_FOOTER // 2**20}. Write it '
                "with larger row groups, or as several files."
            )
        file.seek(0)
    return pq.ParquetFile(file)


def _tables(
    parquet: pq.ParquetFile, groups: list[int], columns: list[str], allowance: "_Allowance", path: str
) -> Iterator[pa.Table]:
    """All rows in order; of a row group in which a batch takes more than is allowed in smaller batches."""
    # Only unpacking tells: a text that the file holds once may stand in every row.
    starts = list(accumulate((parquet.metadata.row_group(group).num_rows for group in groups), initial=0))
    first, rows, done = 0, BATCH_ROWS, 0
    while first < len(groups):
        last = len(groups) if rows == BATCH_ROWS else first + 1
        batches = parquet.iter_batches(rows, groups[first:last], columns, use_threads=False)
        read = starts[first]
        try:
            for table in allowance.within(_plain(pa.Table.from_batches([batch]).select(columns)) for batch in batches):
                read += len(table)
                if read > done:
                    yield table.slice(len(table) - (read - done))
                    done = read
        except MemoryError as error:
            first = min(bisect_right(starts, done), len(groups)) - 1
            in_group = starts[first + 1] - starts[first]
            if rows == 1 or in_group > MOST_BATCHES * (rows // SMALLER or 1):
                raise StoreError(
                    f'"{path}" takes more than {UNPACKING_BYTES // 2**20:,} MiB to unpack, whatever is read of it at '
                    "once. Write it with smaller pages and row groups, or leave it out of the source."
                ) from error
            rows = rows // SMALLER or 1
        else:
            if done != starts[last]:
                raise StoreError(f'"{path}" holds {done:,} rows where it says {starts[last]:,}.')
            first, rows = last, BATCH_ROWS


class _Allowance:
    """How much larger one file may make the process: by `limit` bytes for a table, and twice as much in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ceiling = _data_bytes() + 2 * limit

    def within(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The tables; raises MemoryError for one that takes more."""
        while True:
            with _memory_limit(min(_data_bytes() + self._limit, self._ceiling)):
                table = next(tables, None)
            if table is None:
                return
            yield table


def _data_bytes() -> int:
    """What the system counts as the data of this process; 0 where it does not say."""
    return int(_STATM.read_text().split()[5]) * resource.getpagesize() if _STATM.exists() else 0


@contextmanager
def _memory_limit(largest: int) -> Iterator[None]:
    """Whatever would make the process's data larger than `largest` bytes raises MemoryError; on Linux."""
    with _LIMITED:  # the limit is the whole process's
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limited = _STATM.exists() and (soft == resource.RLIM_INFINITY or largest < soft)
        resource.setrlimit(resource.RLIMIT_DATA, (largest if limited else soft, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """A table that unpacked to more than a batch may have, divided."""
    rows = max(1, len(table) * BATCH_BYTES // max(table.nbytes, BATCH_BYTES))
    return (table.slice(start, rows) for start in range(0, len(table), rows))


def _plain(table: pa.Table) -> pa.Table:
    return _without_binary(_without_views(table))


def _without_views(table: pa.Table) -> pa.Table:
    """Texts and lists in Arrow's view layouts, as Polars writes them, as plain texts: Ray does not pass views on."""
    for position, column in enumerate(table.schema):
        if "_view" in str(column.type):
            plain = pa.binary() if pa.types.is_binary_view(column.type) else None
            values = table[position].cast(plain) if plain else as_text(table[position])
            table = table.set_column(position, column.name, values)
    return table


def _without_binary(table: pa.Table) -> pa.Table:
    """Texts that a file does not declare as such: as those of a CSV."""
    if not any(map(_is_binary, table.schema.types)):
        return table
    return decoded(
        pa.table(
            {
                name: column if _is_binary(column.type) else as_text(column).cast(pa.binary())
                for name, column in zip(table.column_names, table.columns, strict=True)
            }
        )
    )


def _is_binary(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        return _is_binary(type.value_type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))
