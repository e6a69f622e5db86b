"""Arrow IPC streams of untrusted callers: what they declare is counted, then they are read whole and validated."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serve_app.errors import RequestError, too_many_values
from serve_app.http.wire import too_many
from serve_app.model.allowance import Allowance
from serve_app.protocols.arrow_views import list_items, plain_type, text_bytes, viewed_bytes, without_views
from transforms.lift import in_use, joined

T = TypeVar("T")

# Of all columns together. Views and dictionaries let a small stream stand for any number of bytes.
MAX_TEXT_BYTES = 128 * 2**20
# Batches and dictionaries: each costs time, even if it is empty.
MAX_MESSAGES = 1_000
# Names and types of a few thousand columns.
MAX_SCHEMA_BYTES = 2**20


@dataclass(frozen=True)
class Declared:
    """What the messages of a stream say about their sizes."""

    rows: int
    values: int
    """Of all columns, dictionaries and lists."""


def read_declared(body: bytes, max_rows: int, max_columns: int) -> Declared:
    """Count a stream without decoding it.

    Raises RequestError: 400 for what is not a stream, 413 if it declares too much, 415 if it is compressed.

    >>> read_declared(write_stream(pa.table({"size": [1, 2]})), max_rows=10, max_columns=10)
    Declared(rows=2, values=2)
    """
    return _as_the_callers_error(lambda: _read_declared(body, max_rows, max_columns))


def read_stream(
    body: bytes,
    max_rows: int,
    max_columns: int,
    check_types: Callable[[dict[str, pa.DataType]], None] = lambda types: None,
    allowance: Allowance | None = None,
) -> pa.Table:
    """The rows of an untrusted stream, validated, each column in one chunk; views become plain types.

    `check_types` is shown the types before anything is decoded. Raises what it raises, and RequestError: 400 for what
    is not a complete stream, 408 beyond the allowance, 413 for too many rows, values or texts, 415 for a compressed
    stream, 422 for wrong columns.

    >>> table = pa.table({"size": [1, 2]})
    >>> read_stream(write_stream(table), max_rows=10, max_columns=10) == table
    True
    """
    read_declared(body, max_rows, max_columns)

    def read() -> pa.Table:
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            _check_columns(reader.schema, max_columns)
            check_types({column.name: as_read(column.type) for column in reader.schema})
            return _read_batches(reader, max_rows * max_columns, allowance or Allowance())

    return _as_the_callers_error(read)


def as_read(type: pa.DataType) -> pa.DataType:
    """The type as columns are scored: without views; decimal numbers are floats, and bytes texts, if they can be."""
    plain = plain_type(type)
    if pa.types.is_decimal(plain):
        return pa.float64()
    return pa.string() if pa.types.is_binary(plain) or pa.types.is_large_binary(plain) else plain


def write_stream(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _as_the_callers_error(read: Callable[[], T]) -> T:
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as error:
        raise RequestError(400, "invalid_stream", "The body is not a complete, valid Arrow IPC stream.") from error


def _read_batches(reader: Any, max_values: int, allowance: Allowance) -> pa.Table:
    names = reader.schema.names
    parts: dict[str, list[pa.Array]] = {name: [] for name in names}
    count = _Count(max_values)
    for batch in reader:
        allowance.check()
        for name, column in zip(names, batch.columns, strict=True):
            parts[name].append(_read_column(name, column, count))
    types = [plain_type(type) for type in reader.schema.types]
    return pa.table([_as_one(parts[name], type) for name, type in zip(names, types, strict=True)], names)


def _as_one(parts: list[pa.Array], type: pa.DataType) -> pa.Array:
    if not parts:
        return pa.nulls(0, type)
    if len(parts) == 1:
        return parts[0]
    return joined(parts) if pa.types.is_dictionary(type) else pa.concat_arrays(parts)


class _Count:
    """What was decoded of a stream."""

    def __init__(self, max_items: int) -> None:
        self._max_items, self._items, self._bytes = max_items, 0, 0
        self.dictionaries: dict[str, pa.Array] = {}
        """The latest of each column, validated."""

    def items(self, items: int) -> None:
        self._items += items
        if self._items > self._max_items:
            raise too_many_values(self._items, "items of lists", self._max_items)

    def texts(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MAX_TEXT_BYTES:
            raise RequestError(
                413,
                "body_too_large",
                f"The texts of the Arrow stream have more than {MAX_TEXT_BYTES:,} bytes. Send fewer rows at once.",
            )


def _read_column(name: str, column: pa.Array, count: _Count) -> pa.Array:
    """A column of one batch, validated and counted before it is made plain."""
    column.validate()
    count.items(list_items(column))
    if pa.types.is_dictionary(column.type):
        return _read_dictionary(name, column, count)
    count.texts(viewed_bytes(column))
    column.validate(full=True)
    count.texts(text_bytes(column))
    return without_views(column)


def _read_dictionary(name: str, column: pa.DictionaryArray, count: _Count) -> pa.DictionaryArray:
    dictionary, indices = column.dictionary, column.indices
    if not _is_same(dictionary, count.dictionaries.get(name)):
        # A stream of few bytes can extend a long dictionary for every batch anew.
        count.texts(dictionary.get_total_buffer_size() + viewed_bytes(dictionary))
        dictionary.validate(full=True)
        count.dictionaries[name] = dictionary
    indices.validate(full=True)
    bounds = pc.min_max(indices.cast(pa.int64())).as_py()
    if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(dictionary):
        raise ValueError("an index is not in its dictionary")
    count.texts(text_bytes(column))
    return in_use(without_views(column))


def _is_same(dictionary: pa.Array, known: pa.Array | None) -> bool:
    """Whether two arrays are the same memory."""
    return known is not None and len(dictionary) == len(known) and _places(dictionary) == _places(known)


def _places(array: pa.Array) -> list[int]:
    return [buffer.address for buffer in array.buffers() if buffer]


def _check_columns(schema: pa.Schema, max_columns: int) -> None:
    """Names are read here, where an error is known to be the stream's: they may not be UTF-8."""
    if len(schema.names) > max_columns:
        raise RequestError(
            422, "invalid_stream", f"The Arrow stream has {len(schema)} columns, expected at most {max_columns}."
        )
    if len(set(schema.names)) != len(schema.names):
        raise RequestError(422, "invalid_stream", "A column occurs twice in the Arrow stream. Send it once.")


def _read_declared(body: bytes, max_rows: int, max_columns: int) -> Declared:
    rows, values, messages = 0, 0, 0
    with pa.BufferReader(body) as buffer:
        reader = pa.ipc.MessageReader.open_stream(buffer)
        while message := _next(reader):
            metadata = message.metadata
            if message.type == "schema" and metadata.size > MAX_SCHEMA_BYTES:
                raise too_many_values(metadata.size, "bytes of names and types of columns", MAX_SCHEMA_BYTES)
            if message.type not in ("dictionary", "record batch"):
                continue
            messages += 1
            if messages > MAX_MESSAGES:
                raise too_many_values(messages, "batches and dictionaries", MAX_MESSAGES)
            lengths = _lengths_of(metadata.to_pybytes(), message.type == "dictionary")
            values += sum(lengths[1:])
            if message.type == "dictionary" and max(lengths) > max_rows:
                raise too_many_values(max(lengths), "entries of one dictionary", max_rows)
            rows += lengths[0] if message.type == "record batch" else 0
            if rows > max_rows:
                raise too_many(rows, max_rows)
            if values > max_rows * max_columns:
                raise too_many_values(values, "values", max_rows * max_columns)
    return Declared(rows, values)


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _lengths_of(metadata: bytes, is_dictionary: bool) -> list[int]:
    """The rows of a batch, or entries of a dictionary, and the length of each of its arrays.

    Raises RequestError 415 if it is compressed. The numbers of the fields are those of Arrow's Message.fbs: table
    Message, field `header`; table DictionaryBatch, `data`; table RecordBatch, `length`, `nodes`, `compression`.
    """
    (root,) = struct.unpack_from("<I", metadata)
    header = _target(metadata, root, 2)
    if is_dictionary and header is not None:
        header = _target(metadata, header, 1)
    if header is None:
        raise ValueError("a message has no header")
    if _target(metadata, header, 3) is not None:
        raise RequestError(415, "compressed_stream", "The Arrow stream is compressed. Send it without compression.")
    place, nodes = _place(metadata, header, 0), _target(metadata, header, 1)
    lengths = [0 if place is None else struct.unpack_from("<q", metadata, place)[0]]
    if nodes is not None:
        (count,) = struct.unpack_from("<I", metadata, nodes)
        lengths += np.frombuffer(metadata, "<i8", 2 * count, nodes + 4)[::2].tolist()
    if min(lengths) < 0:
        raise ValueError("a length is negative")
    return lengths


def _target(data: bytes, table: int, field: int) -> int | None:
    """The position that a field of a flatbuffer table refers to, or None if the field is not set."""
    place = _place(data, table, field)
    return None if place is None else place + int(struct.unpack_from("<I", data, place)[0])


def _place(data: bytes, table: int, field: int) -> int | None:
    """The position of a field of a flatbuffer table, or None if it is not set."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * field
    (offset,) = struct.unpack_from("<H", data, vtable + entry) if entry < size else (0,)
    return int(table + offset) if offset else None
