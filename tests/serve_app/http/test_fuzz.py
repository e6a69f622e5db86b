"""Whatever a client sends, no answer is a fault of ours, and none tells of internals.

NIGHTPRICE_TEST_FUZZ=2000 makes the run longer.
"""

import json
import os
import random
import struct
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.registry import Registry
from serve_app.http.openapi import document
from serve_app.http.wire import ARROW
from serve_app.model.reloader import ModelReloader
from tests.support.contracts import FLIGHT_OUTCOMES, FLIGHTS, Example
from tests.support.serving.client import Client, client_of
from tests.support.serving.models import boosted_artifact_of
from tests.support.serving.requests import EXAMPLE, listings_table, stream
from transforms.listings import CONTRACT

EXAMPLES = int(os.environ.get("NIGHTPRICE_TEST_FUZZ", "25"))
PATHS = ("/v1/predict", "/v1/predict/batch", "/v1/explain", "/v2/models/listing-price/infer")
quickly = settings(
    max_examples=EXAMPLES * 4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)

schema = schemathesis.openapi.from_dict(document(CONTRACT, max_rows=100))
flight_schema = schemathesis.openapi.from_dict(document(FLIGHTS.contract, max_rows=100))
outcome_schema = schemathesis.openapi.from_dict(document(FLIGHT_OUTCOMES.contract, max_rows=100))
from_document = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    for word in ("Traceback", "site-packages", "/serve_app", "pyarrow", "pydantic", "onnx", "0x"):
        assert answer.status_code == 200 or word not in answer.text, answer.text


def client_of_example(example: Example, folder: Path) -> Client:
    model = boosted_artifact_of(example, folder / "model")
    reloader = ModelReloader(Registry(str(folder)), str(model), example.contract)
    reloader.poll()
    return client_of(reloader)


@pytest.fixture(scope="module")
def flight_client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return client_of_example(FLIGHTS, tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def outcome_client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return client_of_example(FLIGHT_OUTCOMES, tmp_path_factory.mktemp("outcomes"))


@schema.parametrize()
@from_document
def test_requests_made_from_the_document(client: Client, case: Any) -> None:
    check_case(client, case)


@flight_schema.parametrize()
@from_document
def test_requests_made_from_the_document_of_bands(flight_client: Client, case: Any) -> None:
    check_case(flight_client, case)


@outcome_schema.parametrize()
@from_document
def test_requests_made_from_the_document_of_classes(outcome_client: Client, case: Any) -> None:
    check_case(outcome_client, case)


def check_case(client: Client, case: Any) -> None:
    request = case.as_transport_kwargs(base_url="http://nightprice")
    body = {key: request[key] for key in ("json", "content") if request.get(key) is not None}
    data = request.get("data")
    if isinstance(data, (bytes, str)):
        body["content"] = data
    path = httpx.URL(request["url"]).raw_path.decode()
    answer = client.request(
        case.method.upper(),
        path,
        headers={"content-type": request["headers"].get("Content-Type", "application/json")},
        **body,
    )

    check(answer)
    # Other methods than the documented ones are tried too.
    declared = {*case.operation.definition.raw["responses"], "405"}
    assert str(answer.status_code) in declared, (answer.status_code, answer.text[:200])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.integers(10**300, 10**310),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["id", "amenities", "made up", *CONTRACT.features]), values, max_size=5),
    st.sampled_from(PATHS),
)
@quickly
def test_fields_of_any_kind(client: Client, changed: dict[str, Any], path: str) -> None:
    listing = {**EXAMPLE, **changed}
    body: Any = {"listings": [listing]} if "batch" in path else listing
    check(client.post(path, content=json.dumps(body).encode()))


@given(st.binary(max_size=200), st.sampled_from(PATHS), st.sampled_from(["application/json", ARROW, "text/plain", ""]))
@quickly
def test_bodies_of_any_bytes(client: Client, body: bytes, path: str, kind: str) -> None:
    check(client.post(path, content=body, headers={"content-type": kind}))


@pytest.mark.parametrize("seed", range(EXAMPLES * 8))
def test_streams_with_damage(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    whole = bytearray(stream(listings_table(5)))
    for _ in range(chance.randint(1, 6)):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    cut = bytes(whole[: chance.randrange(len(whole))]) if chance.random() < 0.3 else bytes(whole)

    check(client.arrow(cut))


def dictionary(values: pa.Array, indices: list[int | None]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)


# Two values of every kind of column that Arrow can write; those that stand for a field as well as those that never
# could.
COLUMNS = {
    "null": pa.nulls(2),
    "text": pa.array(["Brooklyn", None]),
    "large text": pa.array(["Brooklyn", None], pa.large_string()),
    "text view": pa.array(["Brooklyn", None], pa.string_view()),
    "bytes": pa.array([b"Brooklyn", b"\xff"]),
    "whole": pa.array([1, None]),
    "unsigned": pa.array([1, 2**64 - 1], pa.uint64()),
    "half": pa.array(np.array([1, np.nan], np.float16)),
    "decimal": pa.array([Decimal("1.5"), None]),
    "time": pa.array([datetime(2026, 1, 1), None]),
    "struct": pa.array([{"a": 1}, None]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "texts": pa.array([["TV", None], None]),
    "texts behind a null": pa.ListArray.from_arrays([0, 1, 2], ["Kitchen", "TV"], mask=pa.array([True, False])),
    "large list": pa.array([["TV"], []], pa.large_list(pa.large_string())),
    "list view": pa.array([["TV"], None], pa.list_view(pa.string())),
    "fixed list": pa.array([["TV"], None], pa.list_(pa.string(), 1)),
    "lists of lists": pa.array([[["TV"]], None]),
    "runs": pa.RunEndEncodedArray.from_arrays([2], ["Brooklyn"]),
    "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    "dictionary": dictionary(pa.array(["Brooklyn", "Queens"]), [1, None]),
    "dictionary with a null": dictionary(pa.array(["Brooklyn", None]), [0, 1]),
    "dictionary of a value twice": dictionary(pa.array(["Brooklyn", "Brooklyn"]), [0, 1]),
    "dictionary of nulls": dictionary(pa.nulls(1), [0, None]),
    "dictionary of numbers": dictionary(pa.array([1, 2]), [0, None]),
    "dictionary of structs": dictionary(pa.array([{"a": 1}]), [0, None]),
    "dictionary of lists": dictionary(pa.array([["TV"]]), [0, None]),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("batches", [1, 2])
def test_columns_of_every_type(client: Client, kind: str, batches: int) -> None:
    listings = listings_table(2)
    for name in [*listings.schema.names, "amenities", "made up"]:
        others = {other: listings[other].chunk(0) for other in listings.schema.names if other != name}
        batch = pa.record_batch({**others, name: COLUMNS[kind]})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            for _ in range(batches):
                writer.write_batch(batch)

        answer = client.arrow(bytes(sink.getvalue()))

        check(answer)
        assert answer.status_code in (200, 422), (name, answer.text)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), values, max_size=5),
        max_size=4,
    )
)
@quickly
def test_tensors_of_any_kind(client: Client, inputs: list[dict[str, Any]]) -> None:
    check(client.post(PATHS[3], content=json.dumps({"inputs": inputs}).encode()))


@given(st.binary(max_size=60), st.sampled_from(["BYTES", "FP32", "BOOL", "INT64"]), st.integers(-1, 70))
@quickly
def test_binary_tensors_of_any_bytes(client: Client, content: bytes, datatype: str, size: int) -> None:
    tensor = {"name": "room_type", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    check(
        client.post(PATHS[3], content=header + content, headers={"inference-header-content-length": str(len(header))})
    )


def test_a_stream_of_deep_types(client: Client) -> None:
    check(client.arrow(struct.pack("<II", 0xFFFFFFFF, 2**31 - 1) + b"\0" * 100))
