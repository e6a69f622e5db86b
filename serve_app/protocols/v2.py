"""The Open Inference Protocol V2: one input tensor for each field, so that standard clients work with their defaults.

https://github.com/kserve/open-inference-protocol and, for binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic_core import from_json, to_json

from serve_app.errors import InvalidListing, RequestError
from serve_app.http.wire import JSON, Call, Reply, json_reply, too_many
from serve_app.model.predictor import Predictor, Scored
from serve_app.model.record import INPUTS, REQUIRED
from serve_app.protocols.arrow import count_categories, count_reasons
from serve_app.protocols.tensors import BYTES, read_tensor, refuse, rows_of, write_texts
from transforms.contract import CATEGORY, Field

if TYPE_CHECKING:
    from serve_app.model.reloader import Follower

PROBABILITIES = "probabilities"
HEADER_LENGTH = "inference-header-content-length"
# So many wrong rows are named in a message.
NAMED_ROWS = 5

SERVER, LIVE, SERVER_READY, MODEL, READY, INFER = "server", "live", "server_ready", "model", "ready", "infer"
_PLAIN = {"/v2": SERVER, "/v2/": SERVER, "/v2/health/live": LIVE, "/v2/health/ready": SERVER_READY}


@dataclass(frozen=True)
class Wanted:
    """The model that a path names."""

    name: str | None = None
    version: str | None = None

    def check(self, predictor: Predictor) -> None:
        """Raises RequestError 404 unless it is the one in force."""
        artifact = predictor.artifact
        if self.name not in (None, artifact.name):
            raise RequestError(404, "unknown_model", f"There is no such model here. The model is {artifact.name}.")
        if self.version not in (None, artifact.version):
            raise RequestError(
                404, "unknown_version", f"This version is not in force. The one in force is {artifact.version}."
            )


def find(path: str) -> tuple[str, str, Wanted] | None:
    """The route of a path as metrics call it, what it asks for, and of which model; None if it is none of ours."""
    if path in _PLAIN:
        return path.rstrip("/"), _PLAIN[path], Wanted()
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "models"] or len(parts) < 3:
        return None
    name, rest = parts[2], parts[3:]
    version = rest[1] if rest[:1] == ["versions"] and len(rest) > 1 else None
    asked = "/".join(rest[2:] if version else rest)
    if asked not in ("", READY, INFER):
        return None
    return f"/v2/models/{{model}}{'/' + asked if asked else ''}", asked or MODEL, Wanted(name, version)


def describe(kind: str, wanted: Wanted, follower: "Follower", version: str) -> Reply:
    """Whatever the protocol asks about the server and its model, but inference."""
    if kind == SERVER:
        return json_reply({"name": "nightprice", "version": version, "extensions": ["binary_tensor_data"]})
    if kind == LIVE:
        return json_reply({"live": True})
    if kind == SERVER_READY:
        ready = follower.waiting_for is None
        return json_reply({"ready": ready}, 200 if ready else 503)
    predictor = follower.predictor
    wanted.check(predictor)
    return json_reply({"name": predictor.artifact.name, "ready": True} if kind == READY else metadata(predictor))


def metadata(predictor: Predictor) -> dict[str, Any]:
    """The model's inputs and outputs, as the protocol names them."""
    artifact = predictor.artifact
    return {
        "name": artifact.name,
        "versions": [artifact.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": item.name, "datatype": datatype(item), "shape": [-1]} for item in INPUTS],
        "outputs": [
            {"name": CATEGORY, "datatype": BYTES, "shape": [-1]},
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(artifact.labels)]},
        ],
        "parameters": {"labels": list(artifact.labels), "required": [item.name for item in REQUIRED]},
    }


def datatype(item: Field) -> str:
    """The type that a field's tensor is said to have; others that hold the same values are taken too."""
    if pa.types.is_string(item.type):
        return BYTES
    if pa.types.is_boolean(item.type):
        return "BOOL"
    return "INT64" if pa.types.is_integer(item.type) else "FP64" if item.type == pa.float64() else "FP32"


@dataclass(frozen=True)
class Inputs:
    """An inference request whose tensors were read."""

    request: dict[str, Any]
    columns: dict[str, pa.Array]
    rows: int

    def __len__(self) -> int:
        return self.rows


def read_inputs(call: Call, max_rows: int) -> Inputs:
    """Raises RequestError 400 for a request that is not of the protocol, 413 for too many rows."""
    request, binary = _split(call)
    inputs, rows = _inputs(request, max_rows)
    return Inputs(request, _columns(inputs, binary), rows)


def infer(inputs: Inputs, predictor: Predictor) -> tuple[Reply, Counter[str]]:
    """The answer to an inference request, and how many rows got which category. Raises RequestError 400 for a wrong
    listing.
    """
    try:
        scored = predictor.score_columns(inputs.columns, inputs.rows)
    except InvalidListing as error:
        message = " ".join(problem.message for problem in error.problems)
        raise RequestError(400, "invalid_inputs", message, error.problems) from None
    if scored.wrong.any():
        raise _wrong_rows(scored)
    return _reply(inputs.request, scored, predictor), count_categories(scored, predictor)


def error_reply(error: RequestError) -> Reply:
    """An error in the protocol's own shape; it has no code for fields that don't fit but 400."""
    return json_reply({"error": str(error)}, error.status, error.headers)


def _split(call: Call) -> tuple[dict[str, Any], bytes]:
    """The JSON of a request and the binary data after it."""
    declared = call.header(HEADER_LENGTH)
    if declared and not (
        declared.isascii() and declared.isdigit() and len(declared) < 12 and int(declared) <= len(call.body)
    ):
        raise refuse("Inference-Header-Content-Length is no length within the body.")
    size = int(declared) if declared else len(call.body)
    try:
        # NaN is what clients send for missing.
        request = from_json(call.body[:size], allow_inf_nan=False)
    except ValueError as error:
        raise refuse(f"The request is no JSON: {error}.") from None
    if not isinstance(request, dict):
        raise refuse("The request is no JSON object.")
    return request, call.body[size:]


def _inputs(request: dict[str, Any], max_rows: int) -> tuple[list[dict[str, Any]], int]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs or len(inputs) > 100:
        raise refuse("The request has no list of inputs: send a tensor for each field.")
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise refuse("An input has no name.")
    names = [tensor["name"] for tensor in inputs]
    if len(set(names)) != len(names):
        raise refuse("An input occurs twice.")
    rows = {rows_of(tensor) for tensor in inputs}
    if len(rows) > 1:
        raise refuse(f"The inputs have different numbers of rows: {', '.join(map(str, sorted(rows)[:5]))}.")
    (number,) = rows
    if number > max_rows:
        raise too_many(number, max_rows)
    return inputs, number


def _columns(inputs: list[dict[str, Any]], binary: bytes) -> dict[str, pa.Array]:
    columns, place = {}, 0
    for tensor in inputs:
        size = _binary_size(tensor)
        if size is not None and place + size > len(binary):
            raise refuse(f"{tensor['name']}: the body ends before its binary data.")
        columns[tensor["name"]] = read_tensor(tensor, None if size is None else binary[place : place + size])
        place += size or 0
    if place != len(binary):
        raise refuse(f"{len(binary) - place} bytes of binary data belong to no input.")
    return columns


def _binary_size(tensor: dict[str, Any]) -> int | None:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40):
        raise refuse(f"{tensor['name']}: binary_data_size is no length.")
    return size


def _wrong_rows(scored: Scored) -> RequestError:
    said = []
    for problem, mask in scored.read.problems:
        rows = np.flatnonzero(mask)
        named = ", ".join(map(str, rows[:NAMED_ROWS].tolist())) + (
            f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
        )
        said.append(f"Row {named}: {problem.message}")
    error = RequestError(400, "invalid_listing", " ".join(said))
    error.reasons = count_reasons(scored)
    return error


def _reply(request: dict[str, Any], scored: Scored, predictor: Predictor) -> Reply:
    parts: list[bytes] = []
    outputs = [_output(wanted, scored, predictor, parts) for wanted in _wanted_outputs(request)]
    answer: dict[str, Any] = {
        "model_name": predictor.artifact.name,
        "model_version": predictor.artifact.version,
        "outputs": outputs,
    }
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    header = to_json(answer)
    if not parts:
        return Reply(header, content_type=JSON)
    return Reply(
        b"".join([header, *parts]), content_type="application/octet-stream", headers={HEADER_LENGTH: str(len(header))}
    )


def _wanted_outputs(request: dict[str, Any]) -> list[tuple[str, bool]]:
    """The outputs to give, each with whether in binary."""
    all_binary = _flag(request, "binary_data_output")
    wanted = request.get("outputs")
    if not wanted:
        return [(CATEGORY, all_binary), (PROBABILITIES, all_binary)]
    if not isinstance(wanted, list) or not all(
        isinstance(item, dict) and item.get("name") in (CATEGORY, PROBABILITIES) for item in wanted
    ):
        raise refuse(f"The outputs are {CATEGORY} and {PROBABILITIES}.")
    if len({item["name"] for item in wanted}) != len(wanted):
        raise refuse("An output is asked for twice.")
    return [(item["name"], _flag(item, "binary_data", all_binary)) for item in wanted]


def _flag(holder: dict[str, Any], name: str, default: bool = False) -> bool:
    parameters = holder.get("parameters")
    return bool(parameters.get(name, default)) if isinstance(parameters, dict) else default


def _output(wanted: tuple[str, bool], scored: Scored, predictor: Predictor, parts: list[bytes]) -> dict[str, Any]:
    name, binary = wanted
    rows = len(scored.wrong)
    if name == CATEGORY:
        texts = predictor.categories(scored.probabilities).to_pylist()
        output = {"name": name, "datatype": BYTES, "shape": [rows]}
        content, data = (write_texts(texts), None) if binary else (None, texts)
    else:
        output = {"name": name, "datatype": "FP32", "shape": [rows, len(predictor.artifact.labels)]}
        shares = np.ascontiguousarray(scored.probabilities, "<f4")
        content, data = (shares.tobytes(), None) if binary else (None, shares.ravel().tolist())
    if content is None:
        return {**output, "data": data}
    parts.append(content)
    return {**output, "parameters": {"binary_data_size": len(content)}}
