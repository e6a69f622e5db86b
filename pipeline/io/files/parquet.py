"""Parquet, in batches whose memory is bounded whatever the file says of itself."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.io.stores import Columns, StoreError
from transforms.clean import as_text, decoded

BATCH_ROWS = 32_768
# A batch of fewer rows, where rows are long.
BATCH_BYTES = 64 * 2**20
# What unpacking a batch may take, beyond the columns of a row group as they are stored.
UNPACKING_BYTES = 8 * BATCH_BYTES
# So much smaller batches are tried after one that takes more.
SMALLER = 32


def read_parquet(
    filesystem: fs.FileSystem, path: str, columns: Columns, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    """The chosen columns as they are stored, texts plainly; `row_groups` None reads all.

    Raises StoreError if a row takes more than UNPACKING_BYTES.
    """
    with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
        chosen = columns(parquet.schema_arrow.names, path)
        groups = list(range(parquet.metadata.num_row_groups) if row_groups is None else row_groups)
        if not parquet.metadata.num_rows:
            yield parquet.schema_arrow.empty_table().select(chosen)
        elif groups:
            rows, stored = _mean_batch(parquet.metadata, groups, chosen)
            try:
                for batch in _batches(parquet, groups, chosen, rows, UNPACKING_BYTES + min(stored, file.size())):
                    yield from map(_plain, _pieces(pa.Table.from_batches([batch])))
            except MemoryError as error:
                raise StoreError(
                    f'"{path}" holds rows that unpack to more than {UNPACKING_BYTES // 2**20} MiB each. '
                    "Correct the file, or leave it out of the source."
                ) from error


def _mean_batch(metadata: Any, groups: Sequence[int], columns: Sequence[str]) -> tuple[int, int]:
    """How many rows of the mean size a batch may have, and how many bytes of a row group are read."""
    rows, stored = BATCH_ROWS, 0
    wanted = tuple(f"{name}." for name in columns)
    for group in map(metadata.row_group, groups):
        chunks = [group.column(position) for position in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(wanted)]
        row_bytes = sum(chunk.total_uncompressed_size for chunk in chunks) // max(group.num_rows, 1)
        rows = max(1, min(rows, BATCH_BYTES // max(row_bytes, 1)))
        stored = max(stored, sum(chunk.total_compressed_size for chunk in chunks))
    return rows, stored


def _batches(
    parquet: pq.ParquetFile, groups: list[int], columns: list[str], rows: int, limit: int
) -> Iterator[pa.RecordBatch]:
    """All rows in batches, which are smaller from where a batch takes more than `limit` bytes.

    Raises MemoryError if one row takes more.
    """
    # Only unpacking tells: a text that the file holds once may stand in every row.
    done = 0
    while True:
        batches, read = parquet.iter_batches(rows, groups, columns, use_threads=False), 0
        try:
            while True:
                with _memory_limit(limit):
                    batch = next(batches, None)
                if batch is None:
                    return
                read += len(batch)
                if read > done:
                    yield batch.slice(len(batch) - (read - done))
                    done = read
        except MemoryError:
            if rows == 1:
                raise
            rows = max(1, rows // SMALLER)


@contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Whatever would make the process larger by more than `size` bytes raises MemoryError; on Linux."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    largest = int(statm.read_text().split()[5]) * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_DATA, (largest if soft == resource.RLIM_INFINITY else min(soft, largest), hard))
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
