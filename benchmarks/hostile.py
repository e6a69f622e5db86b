"""Requests that try to cost a service more than they may: a fixed list, and random changes of good ones."""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from serve_app.http.wire import ARROW, JSON
from tests.support.serving.requests import EXAMPLE, INFER, dictionary, listings_table, stream, stream_of, tensor

PREDICT, BATCH, EXPLAIN = "/v1/predict", "/v1/predict/batch", "/v1/explain"
FLAGS = {"tv", "internet", "elevator"}


@dataclass(frozen=True)
class HostileRequest:
    """A POST request."""

    name: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON})


def attacks(size: float = 1.0) -> Iterator[HostileRequest]:
    """The fixed list; `size` makes what is large a part of that."""
    yield from _streams(lambda number: max(2, int(number * size)))
    yield from _documents(lambda number: max(2, int(number * size)))


def _streams(part: Callable[[int], int]) -> Iterator[HostileRequest]:
    nulls, texts = pa.nulls(part(2**27)), [f"{number:040}" for number in range(part(40_000))]
    long = pa.array(["x" * part(20_000)])
    rows, items = 1_000, part(50_000)
    views = pa.ListViewArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([items] * rows, pa.int32()), pa.array([""] * items)
    )
    columns: dict[str, list[dict[str, pa.Array]]] = {
        "dictionary of nulls": [{"beds": dictionary(nulls)}],
        "dictionary of flags": [{"tv": dictionary(pa.array(np.zeros(part(8_000_000), np.bool_)), 1)}],
        "one text for many rows": [{"property_type": dictionary(long, part(50_000))}] * 2,
        "dictionaries of nulls": [{"beds": dictionary(pa.nulls(2))}] * 2,
        "dictionaries of long texts": [{"property_type": dictionary(pa.array([sign * 40_000]))} for sign in "ab"],
        "shared lists": [{"amenities": views}],
        "a list of nothing": [{"amenities": pa.array([None], pa.list_(pa.null(), part(2**30)))}],
        "runs": [{"beds": pa.RunEndEncodedArray.from_arrays([1], [1.0])}],
        "a map": [{"beds": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}],
        "an extension": [{"tv": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))}],
        "very many batches": [{"beds": pa.array([1.0])}] * part(20_000),
    }
    for name, batches in columns.items():
        yield _arrow(name, stream_of(*batches))
    growing = [{"property_type": dictionary(pa.array([*texts, *map(str, range(more))]))} for more in range(120)]
    yield _arrow("a dictionary that grows", stream_of(*growing, emit_dictionary_deltas=True))


def _documents(part: Callable[[int], int]) -> Iterator[HostileRequest]:
    unknown = {f"field{number}": 1 for number in range(64)}
    empty: dict[str, Any] = {"listings": [{}] * part(100_000)}
    many = {"listings": [unknown] * part(10_000)}
    deep = b'{"listings": ' + b"[" * part(1_000_000)
    huge = {**EXAMPLE, "amenities": ["TV"] * part(4_000_000)}
    yield HostileRequest("empty listings", BATCH, _json(empty))
    yield HostileRequest("unknown fields", BATCH, _json(many))
    yield HostileRequest("deep", BATCH, deep)
    yield HostileRequest("a huge listing among small ones", BATCH, _json({"listings": [EXAMPLE, huge, EXAMPLE]}))
    zipped = gzip.compress(b'{"listings": [' + b",".join([b"{}"] * part(10_000_000)) + b"]}", 1)
    yield HostileRequest("compressed", BATCH, zipped, {"content-type": JSON, "content-encoding": "gzip"})
    for path in (PREDICT, EXPLAIN):
        yield HostileRequest("a long text", path, _json({**EXAMPLE, "room_type": "x" * part(30_000_000)}))
        yield HostileRequest("a long list", path, _json({**EXAMPLE, "amenities": [""] * part(8_000_000)}))
        slow = {**EXAMPLE, "amenities": ["tv with " * 120 + "\nx"] * part(8_000)}
        yield HostileRequest("slow patterns", path, _json(slow))
    tensors = [
        {"name": f"t{number}", "shape": [1], "datatype": "INT64", "data": [1]} for number in range(part(400_000))
    ]
    yield HostileRequest("very many tensors", INFER, _json({"inputs": tensors}))
    yield HostileRequest("a long name", INFER, _json({"inputs": [{"name": "x" * part(30_000_000)}]}))
    yield binary_tensor("empty texts", bytes(part(32_000_000)))


def binary_tensor(name: str, content: bytes, datatype: str = "BYTES", rows: int = 1) -> HostileRequest:
    """A request of one binary tensor."""
    parameters = {"binary_data_size": len(content)}
    header = _json({"inputs": [{"name": "room_type", "datatype": datatype, "shape": [rows], "parameters": parameters}]})
    headers = {"content-type": JSON, "inference-header-content-length": str(len(header))}
    return HostileRequest(name, INFER, header + content, headers)


def mutated(seed: int) -> HostileRequest:
    """A good request with a few changes, which follow from the seed."""
    chance = random.Random(seed)
    return chance.choice((_mutated_stream, _mutated_document, _mutated_tensors, _mutated_binary))(chance)


def _mutated_stream(chance: random.Random) -> HostileRequest:
    table = listings_table(chance.choice((0, 1, 5, 300)), seed=chance.randrange(3))
    for name in chance.sample(table.column_names, 3):
        if chance.random() < 0.5 and not pa.types.is_boolean(table.schema.field(name).type):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].combine_chunks().dictionary_encode())
    return _arrow("mutated stream", _damaged(chance, stream(table)))


def _mutated_document(chance: random.Random) -> HostileRequest:
    listing = {**EXAMPLE, **{chance.choice(list(EXAMPLE)): _strange(chance) for _ in range(chance.randint(1, 3))}}
    path = chance.choice((PREDICT, BATCH, EXPLAIN))
    document = {"listings": [listing] * chance.choice((1, 40))} if path == BATCH else listing
    body = _json(document)
    return HostileRequest("mutated document", path, _damaged(chance, body) if chance.random() < 0.3 else body)


def _mutated_tensors(chance: random.Random) -> HostileRequest:
    tensors = [tensor(name, [value]) for name, value in EXAMPLE.items() if name not in FLAGS]
    for one in chance.sample(tensors, 2):
        one[chance.choice(list(one))] = _strange(chance)
    return HostileRequest("mutated tensors", INFER, _json({"inputs": tensors, "outputs": _strange(chance)}))


def _mutated_binary(chance: random.Random) -> HostileRequest:
    content, kind = chance.randbytes(chance.randrange(200)), chance.choice(("BYTES", "BOOL", "INT64", "FP32"))
    return binary_tensor("mutated binary", content, kind, chance.choice((0, 1, 25, 2**39)))


def _strange(chance: random.Random) -> Any:
    return chance.choice(
        (
            None,
            True,
            -1,
            0.5,
            10**30,
            "",
            "x" * 5_000,
            "\x1b[2J",
            [],
            [[]],
            ["TV"] * 20_000,
            {},
            {"a": {"b": [1]}},
            [1, "a"],
        )
    )


def _damaged(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place, kind = chance.randrange(len(changed)), chance.randrange(3)
        # Lengths are numbers of four or eight bytes: the largest are tried more often than chance would.
        changed[place : place + (1, 4, 8)[kind]] = (chance.randbytes(1), b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f")[
            kind
        ]
    return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.2 else changed)


def _arrow(name: str, body: bytes) -> HostileRequest:
    return HostileRequest(name, BATCH, body, {"content-type": ARROW})


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
