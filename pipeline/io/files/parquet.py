"""Parquet, in batches whose size is known before they are unpacked."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.io.stores import Columns, StoreError
from transforms.clean import as_text, decoded

BATCH_ROWS = 32_768
# A batch of fewer rows, where rows are long.
BATCH_BYTES = 64 * 2**20
LARGEST_ROW = 4 * BATCH_BYTES
# One text of a dictionary may stand in a million rows of a file of a megabyte. A dictionary is looked at, which takes
# as long as to read some thousand rows, if a batch could be larger than this with such a text in every row.
SUSPICIOUS_BYTES = 2**30
# Where the file does not say how long texts are: each leaves out what it has in common with the one before.
ROWS_OF_UNKNOWN_SIZE = 256
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def read_parquet(
    filesystem: fs.FileSystem, path: str, columns: Columns, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    """The chosen columns as they are stored, texts plainly; `row_groups` None reads all.

    Raises StoreError if rows unpack to more than LARGEST_ROW each.
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
    """How many rows a batch of these row groups may have. Raises StoreError if a row is too large on average."""
    rows = BATCH_ROWS
    wanted = tuple(f"{name}." for name in columns)
    for group in groups:
        meta = metadata.row_group(group)
        chunks = [meta.column(position) for position in range(meta.num_columns)]
        chunks = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(wanted)]
        if not meta.num_rows:
            continue
        size = sum(_stored_bytes(chunk, metadata.schema) for chunk in chunks) / meta.num_rows
        share = min(1, BATCH_ROWS / meta.num_rows)
        suspicious = [chunk for chunk in chunks if _may_be_longer(chunk, share * chunk.num_values)]
        if suspicious:
            values = sum(chunk.num_values for chunk in suspicious)
            size += _longest_text(file, metadata, group, suspicious) * values / meta.num_rows
        if size > LARGEST_ROW:
            raise StoreError(
                f'"{path}" unpacks to {size / 2**20:,.0f} MiB a row, more than the {LARGEST_ROW // 2**20} MiB '
                "that a row may have. Correct the file, or leave it out of the source."
            )
        if any("DELTA_BYTE_ARRAY" in chunk.encodings for chunk in chunks):
            rows = min(rows, ROWS_OF_UNKNOWN_SIZE)
        rows = max(1, min(rows, int(BATCH_BYTES / max(size, 1))))
    return rows


def _stored_bytes(chunk: Any, schema: Any) -> int:
    """What the values of a column take in memory, those of dictionaries as they are stored."""
    width = _WIDTHS.get(chunk.physical_type, 0)
    if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
        columns = map(schema.column, range(len(schema)))
        width = next(column.length for column in columns if column.path == chunk.path_in_schema)
    return max(int(chunk.total_uncompressed_size), int(chunk.num_values) * width)


def _may_be_longer(chunk: Any, values: float) -> bool:
    """Whether so many values could be too large, had each the size of the whole dictionary."""
    is_text = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
    return bool(is_text and values * chunk.total_uncompressed_size > SUSPICIOUS_BYTES)


def _longest_text(file: pa.NativeFile, metadata: Any, group: int, chunks: Sequence[Any]) -> int:
    """In bytes, of the dictionaries of these columns."""
    paths = [chunk.path_in_schema for chunk in chunks]
    with pq.ParquetFile(file, metadata=metadata, read_dictionary=paths) as parquet:
        first = next(parquet.iter_batches(1, [group], paths, use_threads=False))
    lengths = [pc.max(pc.binary_length(each)).as_py() or 0 for each in _dictionaries(first.columns)]
    return max(lengths, default=0)


def _dictionaries(arrays: Iterable[pa.Array]) -> Iterator[pa.Array]:
    for array in arrays:
        if isinstance(array, pa.ExtensionArray):
            yield from _dictionaries([array.storage])
        elif pa.types.is_dictionary(array.type):
            yield array.dictionary
        elif pa.types.is_struct(array.type):
            yield from _dictionaries(array.flatten())
        elif pa.types.is_map(array.type):
            yield from _dictionaries([array.keys, array.items])
        elif pa.types.is_nested(array.type):
            yield from _dictionaries([array.values])


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
