"""Parquet, in batches whose size is known before they are unpacked."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.io.stores import Columns, StoreError
from transforms.clean import as_text, decoded

BATCH_ROWS = 32_768
# A batch of fewer rows, where rows are long. One text of a dictionary may stand in a million rows of a file of a
# megabyte, so its length counts for every row.
BATCH_BYTES = 64 * 2**20
# A dictionary is looked at if a batch could be larger with a single text of its size in every row.
SUSPICIOUS_BYTES = 2**30


def read_parquet(
    filesystem: fs.FileSystem, path: str, columns: Columns, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    """The chosen columns as they are stored, texts plainly; `row_groups` None reads all.

    Raises StoreError if a row unpacks to more than BATCH_BYTES.
    """
    with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
        chosen = columns(parquet.schema_arrow.names, path)
        groups = range(parquet.metadata.num_row_groups) if row_groups is None else row_groups
        if not parquet.metadata.num_rows:
            yield parquet.schema_arrow.empty_table().select(chosen)
        if not groups:
            return
        rows = _batch_rows(file, parquet.metadata, groups, chosen, path)
        for batch in parquet.iter_batches(rows, list(groups), chosen, use_threads=False):
            yield _without_binary(_without_views(pa.Table.from_batches([batch])))


def _batch_rows(file: pa.NativeFile, metadata: Any, groups: Sequence[int], columns: Sequence[str], path: str) -> int:
    """How many rows a batch of these row groups may have. Raises StoreError if a single row may be too large."""
    rows = BATCH_ROWS
    wanted = tuple(f"{name}." for name in columns)
    for group in groups:
        chunks = metadata.row_group(group)
        if not chunks.num_rows:
            continue
        size = 0.0
        for chunk in map(chunks.column, range(chunks.num_columns)):
            if f"{chunk.path_in_schema}.".startswith(wanted):
                size += _row_bytes(file, chunk, group, chunks.num_rows)
        if size > BATCH_BYTES:
            raise StoreError(
                f'"{path}" unpacks to {size / 2**20:,.0f} MiB a row, more than the {BATCH_BYTES // 2**20} MiB '
                "that are read at once. Correct the file, or leave it out of the source."
            )
        rows = min(rows, int(BATCH_BYTES / max(size, 1)))
    return rows


def _row_bytes(file: pa.NativeFile, chunk: Any, group: int, rows: int) -> float:
    """The size of a row's value in one column: the mean, or that of the longest text of a suspicious dictionary."""
    stored: float = chunk.total_uncompressed_size / rows
    if chunk.physical_type != "BYTE_ARRAY" or not chunk.has_dictionary_page:
        return stored
    if min(rows, BATCH_ROWS) * chunk.total_uncompressed_size <= SUSPICIOUS_BYTES:
        return stored
    with pq.ParquetFile(file, read_dictionary=[chunk.path_in_schema]) as parquet:
        (first,) = next(parquet.iter_batches(1, [group], [chunk.path_in_schema], use_threads=False)).columns
    while not pa.types.is_dictionary(first.type):
        first = first.field(0) if pa.types.is_struct(first.type) else first.values
    longest: int = pc.max(pc.binary_length(first.dictionary)).as_py() or 0
    values: int = chunk.num_values
    return max(stored, longest * values / rows)


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
