"""Bodies of requests: streams of Arrow, tensors of the Open Inference Protocol."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from serve_app.protocols.v2 import datatype
from tests.support.accepted_listings import accepted_listings
from tests.support.tiny_model import NAME
from transforms.listings import CONTRACT

EXAMPLE = dict(CONTRACT.example)
"""A good listing as a caller sends it."""
INFER = f"/v2/models/{NAME}/infer"


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def stream_of(*batches: Mapping[str, pa.Array], **options: Any) -> bytes:
    """A stream of batches of the example, each with some columns of its own."""
    sink, writer = pa.BufferOutputStream(), None
    for own in batches:
        rows = pa.nulls(len(next(iter(own.values()))), pa.int64()).fill_null(0)
        batch = pa.record_batch({**{name: pa.array([value]).take(rows) for name, value in EXAMPLE.items()}, **own})
        writer = writer or pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options))
        writer.write_batch(batch)
    assert writer
    writer.close()
    return bytes(sink.getvalue())


def dictionary(entries: pa.Array, rows: int = 5, index: pa.DataType | None = None) -> pa.Array:
    """Rows that all have the first entry."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, index or pa.int8()), entries)


def listings_table(rows: int, seed: int = 0) -> pa.Table:
    return accepted_listings(rows, seed).drop_columns([CONTRACT.target, CONTRACT.label_name])


def tensor(name: str, values: list[Any], kind: str | None = None, shape: list[int] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": kind or datatype(CONTRACT.by_name[name]),
        "shape": shape or [len(values)],
        "data": values,
    }
