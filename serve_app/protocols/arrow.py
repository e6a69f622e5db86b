"""Arrow streams in and out: listings as columns, their scores as columns."""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from serve_app.errors import InvalidListing, RequestError
from serve_app.http.wire import too_many
from serve_app.model.predictor import Predictor, Scored
from transforms.contract import CATEGORY
from transforms.encode import Matrix

PROBLEMS = "problems"


@dataclass(frozen=True)
class ScoredStream:
    """The results as an Arrow stream, and what metrics want to know."""

    content: bytes
    categories: Counter[str]
    reasons: Counter[str]


def score_table(table: pa.Table, predictor: Predictor) -> ScoredStream:
    """Listings to an Arrow stream of results, a row each, in order: id, category, probabilities, model, problems.

    The columns are the fields of a listing; `problems` is null for a row that was scored, else a list of
    `field:problem`. Raises RequestError 422 for a column that is wrong as a whole.
    """
    try:
        scored = predictor.score_columns(dict(zip(table.schema.names, table.columns, strict=True)), table.num_rows)
    except InvalidListing as error:
        raise RequestError(422, "invalid_columns", f"The columns don't fit: {error}", error.problems) from None
    return ScoredStream(write_stream(scored, predictor), count_categories(scored, predictor), count_reasons(scored))


def count_categories(scored: Scored, predictor: Predictor) -> Counter[str]:
    """How many rows got which category."""
    best = np.bincount(scored.probabilities[~scored.wrong].argmax(axis=1), minlength=len(predictor.artifact.labels))
    return Counter({label: int(count) for label, count in zip(predictor.artifact.labels, best, strict=True) if count})


def count_reasons(scored: Scored) -> Counter[str]:
    """How many rows were refused for which `field:problem`."""
    return Counter({problem.reason: int(mask.sum()) for problem, mask in scored.read.problems})


def read_stream(body: bytes, max_rows: int) -> pa.Table:
    """The rows of an untrusted stream, validated; compressed ones are refused, as they could fill any memory.

    Raises RequestError: 400 for what is no whole stream, 413 for too many rows, 415 for a compressed one, 422 for
    wrong columns.
    """
    try:
        with pa.BufferReader(body) as buffer:
            _refuse_compressed(buffer)
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            _check_columns(reader.schema)
            batches, rows = [], 0
            for batch in reader:
                rows += batch.num_rows
                if rows > max_rows:
                    raise too_many(rows, max_rows)
                batch.validate(full=True)
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise RequestError(400, "invalid_stream", "The body is no whole, valid Arrow stream.") from error


def write_stream(scored: Scored, predictor: Predictor) -> bytes:
    """The results as an Arrow stream."""
    table = pa.table(
        {
            "id": scored.read.values["id"],
            CATEGORY: _or_null(predictor.categories(scored.probabilities), scored),
            **{
                f"probability_{label}": _shares(scored.probabilities, i, scored)
                for i, label in enumerate(predictor.artifact.labels)
            },
            "model": pa.DictionaryArray.from_arrays(np.zeros(len(scored.wrong), np.int8), [predictor.ref]),
            PROBLEMS: _reasons(scored),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _shares(probabilities: Matrix, position: int, scored: Scored) -> pa.Array:
    return pa.array(np.ascontiguousarray(probabilities[:, position]), pa.float32(), mask=scored.wrong)


def _or_null(column: pa.Array, scored: Scored) -> pa.Array:
    return pa.compute.if_else(pa.array(scored.wrong), pa.scalar(None, column.type), column)


def _reasons(scored: Scored) -> pa.Array:
    reasons: dict[int, list[str]] = {}
    for problem, mask in scored.read.problems:
        for row in np.flatnonzero(mask).tolist():
            reasons.setdefault(row, []).append(problem.reason)
    return pa.array(
        [reasons.get(row) for row in range(len(scored.wrong))] if reasons else pa.nulls(len(scored.wrong)),
        pa.list_(pa.string()),
    )


def _check_columns(schema: pa.Schema) -> None:
    """Names are read here, where an error is known to be the stream's: they may be no UTF-8."""
    if len(schema.names) > 100:
        raise RequestError(
            422, "invalid_stream", f"{len(schema)} columns in the Arrow stream: a listing has fewer fields."
        )
    if len(set(schema.names)) != len(schema.names):
        raise RequestError(422, "invalid_stream", "A column occurs twice in the Arrow stream.")


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
        metadata = message.metadata.to_pybytes()
        (root,) = struct.unpack_from("<I", metadata)
        header = _table_at(metadata, root, 2)
        if message.type == "dictionary" and header is not None:
            header = _table_at(metadata, header, 1)
        if (
            message.type in ("dictionary", "record batch")
            and header is not None
            and _table_at(metadata, header, 3) is not None
        ):
            raise RequestError(415, "compressed_stream", "The Arrow stream is compressed. Send it without compression.")


def _table_at(data: bytes, table: int, number: int) -> int | None:
    """The position of the table that a field of a flatbuffer table refers to, or None if the field is not set."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (size,) = struct.unpack_from("<H", data, vtable)
    place = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", data, vtable + place) if place < size else (0,)
    if not offset:
        return None
    (to_target,) = struct.unpack_from("<I", data, table + offset)
    return int(table + offset + to_target)
