"""Streams as Polars writes them, and views that stand for more than they send."""

import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars
import pyarrow as pa
import pytest

from tests.support.serving.client import Client
from tests.support.serving.requests import EXAMPLE, listings_table, stream

TEXTS = ["neighbourhood", "room_type", "property_type"]


def scored(client: Client, body: bytes) -> pa.Table:
    answer = client.arrow(body)
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


@pytest.mark.parametrize("compat_level", ["newest", "oldest"])
@pytest.mark.parametrize("type", [polars.String, polars.Categorical, polars.Binary])
def test_what_polars_writes_is_scored(client: Client, compat_level: str, type: Any) -> None:
    table = listings_table(300)
    frame = polars.DataFrame(polars.from_arrow(table)).with_columns(polars.col(name).cast(type) for name in TEXTS)
    body = io.BytesIO()
    frame.write_ipc_stream(body, compat_level=getattr(polars.CompatLevel, compat_level)())

    assert scored(client, body.getvalue()) == scored(client, stream(table))


LISTS = [["Wifi", "HDTV with Netflix"], None, [], ["Kitchen", None]]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(LISTS, pa.list_view(pa.string())),
        pa.array(LISTS, pa.large_list_view(pa.large_string())),
        pa.array(LISTS, pa.list_(pa.string_view())),
        pa.array(LISTS, pa.large_list(pa.string_view())),
        pa.array(LISTS, pa.list_view(pa.string_view())),
    ],
)
@pytest.mark.parametrize("batches", [0, 1, 2])
def test_lists_of_every_kind_are_read(client: Client, column: pa.Array, batches: int) -> None:
    def body(amenities: pa.Array) -> bytes:
        batch = pa.record_batch(
            pa.Table.from_pylist([EXAMPLE] * 4).to_batches()[0].to_pydict() | {"amenities": amenities}
        )
        table = pa.Table.from_batches([batch] * batches, batch.schema)
        return stream(table.drop_columns([name for name in ("tv", "internet") if name in table.column_names]))

    assert scored(client, body(column)) == scored(client, body(pa.array(LISTS, pa.list_(pa.string()))))


def test_decimal_numbers_are_numbers(client: Client) -> None:
    row = {**EXAMPLE, "bathrooms": 1.5}
    exact = pa.Table.from_pylist([{**row, "bathrooms": Decimal("1.50"), "accommodates": Decimal(4)}])

    assert scored(client, stream(exact)) == scored(client, stream(pa.Table.from_pylist([{**row, "accommodates": 4}])))


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    "shared",
    [
        lambda: pa.Array.from_buffers(
            pa.string_view(), 1_000, [None, pa.py_buffer(_view() * 1_000), pa.py_buffer(LONG.encode())]
        ),
        lambda: pa.DictionaryArray.from_arrays(pa.array([0] * 1_000), pa.array([LONG])),
        lambda: pa.ListViewArray.from_arrays(
            pa.array([0] * 1_000, pa.int32()), pa.array([1] * 1_000, pa.int32()), [LONG]
        ),
    ],
)
def test_rows_that_share_one_long_text_are_refused(client: Client, shared: Callable[[], pa.Array]) -> None:
    column = shared()
    name = "amenities" if pa.types.is_list_view(column.type) else "neighbourhood"
    others = pa.Table.from_pylist([EXAMPLE] * 1_000).drop_columns([name] if name in EXAMPLE else [])
    body = stream(others.append_column(name, column))
    assert len(body) < 2_000_000

    answer = client.arrow(body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def _view() -> bytes:
    """A view of LONG: its length, its beginning, which buffer, where."""
    return len(LONG).to_bytes(4, "little") + LONG[:4].encode() + bytes(8)
