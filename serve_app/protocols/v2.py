"""The Open Inference Protocol V2: one input tensor for each field, so that standard clients work with their defaults.

https://github.com/kserve/open-inference-protocol and, for binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic_core import to_json

from serve_app.errors import InvalidRecord, RequestError, invalid_code
from serve_app.http.wire import JSON, Request, Response, json_response, parse_json, too_many
from serve_app.model.allowance import Allowance
from serve_app.model.predictor import Predictor, Scored
from serve_app.model.record import MAX_TEXT_CHARACTERS
from serve_app.model.reloader import ModelReloader
from serve_app.protocols.arrow import count_labels, count_reasons
from serve_app.protocols.tensors import BYTES, read_tensor, refuse, rows_of, write_texts
from transforms.contract import Contract, Field

PROBABILITIES = "probabilities"
HEADER_LENGTH = "inference-header-content-length"
# How many wrong rows a message names.
MAX_NAMED_ROWS = 5

SERVER, LIVE, SERVER_READY, MODEL, READY, INFER = "server", "live", "server_ready", "model", "ready", "infer"
_PLAIN = {"/v2": SERVER, "/v2/": SERVER, "/v2/health/live": LIVE, "/v2/health/ready": SERVER_READY}


@dataclass(frozen=True)
class RequestedModel:
    """The model that a path names; None for what it does not name."""

    name: str | None = None
    version: str | None = None

    def check(self, predictor: Predictor) -> None:
        """Raises RequestError 404 unless it is the one in force."""
        artifact = predictor.artifact
        if self.name not in (None, artifact.name):
            raise RequestError(404, "unknown_model", f"This model is not here. The model is {artifact.name}.")
        if self.version not in (None, artifact.version):
            raise RequestError(
                404, "unknown_version", f"This version is not in force. The one in force is {artifact.version}."
            )


class Route(NamedTuple):
    """What a path asks for."""

    name: str
    """As metrics count it."""
    kind: str
    model: RequestedModel


def find(path: str) -> Route | None:
    """The route of a path, or None if the protocol has no such path.

    >>> find("/v2/models/example/versions/3/infer")
    Route(name='/v2/models/{model}/infer', kind='infer', model=RequestedModel(name='example', version='3'))
    """
    if path in _PLAIN:
        return Route(path.rstrip("/"), _PLAIN[path], RequestedModel())
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "models"] or len(parts) < 3:
        return None
    name, rest = parts[2], parts[3:]
    version = rest[1] if rest[:1] == ["versions"] and len(rest) > 1 else None
    kind = "/".join(rest[2:] if version else rest)
    if kind not in ("", READY, INFER):
        return None
    return Route(f"/v2/models/{{model}}{'/' + kind if kind else ''}", kind or MODEL, RequestedModel(name, version))


def describe(route: Route, reloader: ModelReloader, version: str) -> Response:
    """Whatever the protocol asks about the server and its model, except inference."""
    if route.kind == SERVER:
        return json_response({"name": "nightprice", "version": version, "extensions": ["binary_tensor_data"]})
    if route.kind == LIVE:
        return json_response({"live": True})
    if route.kind == SERVER_READY:
        ready = reloader.waiting_for is None
        return json_response({"ready": ready}, 200 if ready else 503)
    predictor = reloader.predictor
    route.model.check(predictor)
    if route.kind == READY:
        return json_response({"name": predictor.artifact.name, "ready": True})
    return json_response(metadata(predictor))


def metadata(predictor: Predictor) -> dict[str, Any]:
    """The model's inputs and outputs, as the protocol names them."""
    artifact, reader = predictor.artifact, predictor.reader
    return {
        "name": artifact.name,
        "versions": [artifact.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": item.name, "datatype": datatype(item), "shape": [-1]} for item in reader.inputs],
        "outputs": [
            {"name": predictor.contract.label_name, "datatype": BYTES, "shape": [-1]},
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(artifact.labels)]},
        ],
        "parameters": {"labels": list(artifact.labels), "required": [item.name for item in reader.required]},
    }


def datatype(item: Field) -> str:
    """The datatype that a field's tensor is declared with; others that hold the same values are read too.

    >>> datatype(Field("size", ("size",), int, pa.int16(), ""))
    'INT64'
    """
    if item.is_text:
        return BYTES
    if pa.types.is_boolean(item.type):
        return "BOOL"
    if pa.types.is_integer(item.type):
        return "INT64"
    return "FP64" if item.type == pa.float64() else "FP32"


@dataclass(frozen=True)
class Inputs:
    """An inference request whose tensors were read."""

    request: dict[str, Any]
    columns: dict[str, pa.Array]
    rows: int


def read_inputs(request: Request, max_rows: int, max_inputs: int, max_json_bytes: float = math.inf) -> Inputs:
    """Raises RequestError 400 for a request that does not follow the protocol, 413 for too many rows or values."""
    body, binary = _split(request, max_json_bytes)
    tensors, rows = _tensors(body, max_rows, max_inputs)
    return Inputs(body, _columns(tensors, binary), rows)


def infer(inputs: Inputs, predictor: Predictor, allowance: Allowance | None = None) -> tuple[Response, Counter[str]]:
    """The response to an inference request, and how many rows got which label.

    Raises RequestError 400 for a wrong record, 408 and 413 beyond the allowance.
    """
    try:
        scored = predictor.score_columns(inputs.columns, inputs.rows, allowance)
    except InvalidRecord as error:
        message = " ".join(problem.message for problem in error.problems)
        raise RequestError(400, "invalid_inputs", message, error.problems) from None
    if scored.wrong.any():
        raise _wrong_rows(scored, predictor.contract)
    return _response(inputs.request, scored, predictor), count_labels(scored, predictor)


def error_response(error: RequestError) -> Response:
    """An error in the protocol's own shape; its only code for fields that are wrong is 400."""
    return json_response({"error": str(error)}, error.status, error.headers)


def _split(request: Request, max_json_bytes: float) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request and the binary data after it."""
    declared, size = request.header(HEADER_LENGTH), len(request.body)
    if declared:
        is_number = declared.isascii() and declared.isdigit() and len(declared) < 12
        if not is_number or int(declared) > size:
            raise refuse("Inference-Header-Content-Length is not a length within the body.")
        size = int(declared)
    # NaN is what clients send for missing.
    body = parse_json(request.body[:size], allow_nan=True, max_bytes=max_json_bytes)
    if not isinstance(body, dict):
        raise refuse("The request is not a JSON object.")
    return body, request.body[size:]


def _tensors(request: dict[str, Any], max_rows: int, max_inputs: int) -> tuple[list[dict[str, Any]], int]:
    tensors, request_id = request.get("inputs"), request.get("id")
    if isinstance(request_id, str) and len(request_id) > MAX_TEXT_CHARACTERS:
        raise refuse(f"The id has more than {MAX_TEXT_CHARACTERS:,} characters.")
    if not isinstance(tensors, list) or not tensors:
        raise refuse("The request has no list of inputs: send a tensor for each field.")
    if len(tensors) > max_inputs:
        raise refuse(f"The request has {len(tensors):,} inputs, expected at most {max_inputs}.")
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise refuse("An input has no name.")
        if len(tensor["name"]) > MAX_TEXT_CHARACTERS:
            raise refuse(f"The name of an input has more than {MAX_TEXT_CHARACTERS:,} characters.")
    if len({tensor["name"] for tensor in tensors}) != len(tensors):
        raise refuse("An input occurs twice.")
    counts = {rows_of(tensor) for tensor in tensors}
    if len(counts) > 1:
        raise refuse(f"The inputs have different numbers of rows: {', '.join(map(str, sorted(counts)[:5]))}.")
    (rows,) = counts
    if rows > max_rows:
        raise too_many(rows, max_rows)
    return tensors, rows


def _columns(tensors: list[dict[str, Any]], binary: bytes) -> dict[str, pa.Array]:
    columns, position = {}, 0
    for tensor in tensors:
        size = _binary_size(tensor)
        if size is not None and position + size > len(binary):
            raise refuse(f"{tensor['name']}: the body ends before its binary data.")
        content = None if size is None else binary[position : position + size]
        columns[tensor["name"]] = read_tensor(tensor, content)
        position += size or 0
    if position != len(binary):
        raise refuse(f"{len(binary) - position} bytes of binary data belong to no input.")
    return columns


def _binary_size(tensor: dict[str, Any]) -> int | None:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40):
        raise refuse(f"{tensor['name']}: binary_data_size is not a length.")
    return size


def _wrong_rows(scored: Scored, contract: Contract) -> RequestError:
    messages = []
    for problem, mask in scored.read.problems:
        rows = np.flatnonzero(mask)
        named = ", ".join(map(str, rows[:MAX_NAMED_ROWS].tolist()))
        more = f" and {len(rows) - MAX_NAMED_ROWS} more" if len(rows) > MAX_NAMED_ROWS else ""
        messages.append(f"Row {named}{more}: {problem.message}")
    error = RequestError(400, invalid_code(contract.record), " ".join(messages))
    error.reasons = count_reasons(scored)
    return error


def _response(request: dict[str, Any], scored: Scored, predictor: Predictor) -> Response:
    chunks: list[bytes] = []
    answer: dict[str, Any] = {
        "model_name": predictor.artifact.name,
        "model_version": predictor.artifact.version,
        "outputs": [
            _output(name, is_binary, scored, predictor, chunks)
            for name, is_binary in _requested_outputs(request, predictor.contract.label_name)
        ],
    }
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    header = to_json(answer)
    if not chunks:
        return Response(header, content_type=JSON)
    return Response(
        b"".join([header, *chunks]), content_type="application/octet-stream", headers={HEADER_LENGTH: str(len(header))}
    )


def _requested_outputs(request: dict[str, Any], label_name: str) -> list[tuple[str, bool]]:
    """The outputs to send, each with whether in binary."""
    all_binary = _flag(request, "binary_data_output", default=False)
    names = (label_name, PROBABILITIES)
    outputs = request.get("outputs")
    if not outputs:
        return [(name, all_binary) for name in names]
    if not isinstance(outputs, list) or not all(_is_named(item, names) for item in outputs):
        raise refuse(f"The outputs are {label_name} and {PROBABILITIES}.")
    if len({item["name"] for item in outputs}) != len(outputs):
        raise refuse("An output is requested twice.")
    return [(item["name"], _flag(item, "binary_data", default=all_binary)) for item in outputs]


def _is_named(item: Any, names: tuple[str, ...]) -> bool:
    return isinstance(item, dict) and item.get("name") in names


def _flag(holder: dict[str, Any], name: str, *, default: bool) -> bool:
    parameters = holder.get("parameters")
    return bool(parameters.get(name, default)) if isinstance(parameters, dict) else default


def _output(name: str, is_binary: bool, scored: Scored, predictor: Predictor, chunks: list[bytes]) -> dict[str, Any]:
    """One output tensor; its content goes to `chunks` if it is binary."""
    rows, labels = scored.probabilities.shape
    if name == PROBABILITIES:
        output: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": [rows, labels]}
        numbers = np.ascontiguousarray(scored.probabilities, "<f4")
        content, data = (numbers.tobytes(), None) if is_binary else (None, numbers.ravel().tolist())
    else:
        output = {"name": name, "datatype": BYTES, "shape": [rows]}
        texts = predictor.labels_of(scored.probabilities).to_pylist()
        content, data = (write_texts(texts), None) if is_binary else (None, texts)
    if content is None:
        return {**output, "data": data}
    chunks.append(content)
    return {**output, "parameters": {"binary_data_size": len(content)}}
