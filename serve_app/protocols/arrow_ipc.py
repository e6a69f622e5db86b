"""Arrow IPC streams of untrusted callers: read whole and validated, compressed ones refused, views made plain."""

import struct
from typing import Any

import pyarrow as pa

from serve_app.errors import RequestError
from serve_app.http.wire import too_many
from serve_app.protocols.arrow_views import plain_type, text_bytes, without_views

# Of all columns together. Views and dictionaries let a small stream stand for any number of bytes.
MAX_TEXT_BYTES = 256 * 2**20


def read_stream(body: bytes, max_rows: int, max_columns: int) -> pa.Table:
    """The rows of an untrusted stream, validated; compressed ones are refused, as they could fill any memory.

    Views become plain types. Raises RequestError: 400 for what is not a complete stream, 413 for too many rows or
    texts, 415 for a compressed one, 422 for wrong columns.

    >>> table = pa.table({"size": [1, 2]})
    >>> read_stream(write_stream(table), max_rows=10, max_columns=10) == table
    True
    """
    try:
        with pa.BufferReader(body) as buffer:
            _refuse_compressed(buffer)
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            _check_columns(reader.schema, max_columns)
            return _read_batches(reader, max_rows)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise RequestError(400, "invalid_stream", "The body is not a complete, valid Arrow IPC stream.") from error


def write_stream(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _read_batches(reader: Any, max_rows: int) -> pa.Table:
    schema = pa.schema([(column.name, plain_type(column.type)) for column in reader.schema])
    batches, rows, size = [], 0, 0
    for batch in reader:
        rows += batch.num_rows
        if rows > max_rows:
            raise too_many(rows, max_rows)
        batch.validate(full=True)
        size += sum(map(text_bytes, batch.columns))
        if size > MAX_TEXT_BYTES:
            raise RequestError(
                413,
                "body_too_large",
                f"The texts of the Arrow stream have more than {MAX_TEXT_BYTES:,} bytes. Send fewer rows at once.",
            )
        batches.append(pa.RecordBatch.from_arrays(list(map(without_views, batch.columns)), schema=schema))
    return pa.Table.from_batches(batches, schema)


def _check_columns(schema: pa.Schema, max_columns: int) -> None:
    """Names are read here, where an error is known to be the stream's: they may not be UTF-8."""
    if len(schema.names) > max_columns:
        raise RequestError(
            422, "invalid_stream", f"The Arrow stream has {len(schema)} columns, expected at most {max_columns}."
        )
    if len(set(schema.names)) != len(schema.names):
        raise RequestError(422, "invalid_stream", "A column occurs twice in the Arrow stream. Send it once.")


def _refuse_compressed(buffer: Any) -> None:
    """Compression is in each message's header: table Message, field `header`, table RecordBatch, field `compression`.

    The numbers of the fields are those of Arrow's Message.fbs.
    """
    reader = pa.ipc.MessageReader.open_stream(buffer)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type not in ("dictionary", "record batch"):
            continue
        metadata = message.metadata.to_pybytes()
        (root,) = struct.unpack_from("<I", metadata)
        header = _table_at(metadata, root, 2)
        if message.type == "dictionary" and header is not None:
            header = _table_at(metadata, header, 1)
        if header is not None and _table_at(metadata, header, 3) is not None:
            raise RequestError(415, "compressed_stream", "The Arrow stream is compressed. Send it without compression.")


def _table_at(data: bytes, table: int, field: int) -> int | None:
    """The position of the table that a field of a flatbuffer table refers to, or None if the field is not set."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * field
    (offset,) = struct.unpack_from("<H", data, vtable + entry) if entry < size else (0,)
    if not offset:
        return None
    (to_target,) = struct.unpack_from("<I", data, table + offset)
    return int(table + offset + to_target)
