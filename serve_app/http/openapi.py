"""The OpenAPI document, derived from the contract table."""

from typing import Any

import pyarrow as pa
from transforms.listings.example import EXAMPLE

from serve_app.http.wire import ARROW, JSON
from serve_app.model.record import EXACT, INPUTS
from transforms.contract import AMENITIES_COLUMN, FEATURES, Field

_ANSWER = {
    "id": EXAMPLE["id"],
    "price_category": "High",
    "probabilities": {"Low": 0.01, "Mid": 0.24, "High": 0.68, "Lux": 0.07},
    "model": "listing-price@20261123T134500Z-1a2b3c",
}

Json = dict[str, Any]


def field_schema(item: Field) -> Json:
    """The JSON Schema of one field's value, as `read_value` reads it."""
    said: Json = {"description": item.description}
    if pa.types.is_boolean(item.type):
        kinds: list[Json] = [{"type": "boolean"}, {"type": "integer", "enum": [0, 1]}]
    elif pa.types.is_string(item.type):
        # Allowed values may have spaces around them, as raw data has; the document names the plain ones.
        kinds = (
            [{"type": "string", "enum": list(item.allowed)}]
            if item.allowed
            else [{"type": "string", "pattern": r"\S"} if item.required else {"type": "string"}]
        )
    else:
        kinds = [
            {
                "type": "integer" if pa.types.is_integer(item.type) else "number",
                "minimum": item.low,
                "maximum": item.high,
            }
        ]
        if item.high is not None and item.high > EXACT:
            kinds[0]["format"] = "int64"
    if not item.required:
        kinds.append({"type": "null"})
    return {**said, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}


def listing_schema() -> Json:
    """The JSON Schema of a listing."""
    fields = {item.name: field_schema(item) for item in INPUTS}
    amenities = {
        "description": "What the listing offers, in the host's words; a flag that is given wins.",
        "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
    }
    return {
        "type": "object",
        "description": "A listing without its price. A flag that is absent means: not listed.",
        "properties": {**fields, AMENITIES_COLUMN: amenities},
        "required": [item.name for item in INPUTS if item.required],
        "additionalProperties": False,
        "example": EXAMPLE,
    }


def document(version: str, max_rows: int, keys: bool) -> Json:
    """The whole document; `keys` says whether callers need one."""
    security: Json = {"security": [{"bearer": []}, {"header": []}]} if keys else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nightprice",
            "version": version,
            "description": "Nightly price categories of short-term rental listings. Every error names what was found and what is allowed.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(max_rows),
            "responses": _responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        **security,
    }


def _paths() -> Json:
    return {
        "/v1/predict": {
            "post": _operation("predict", "The price category of one listing", "Listing", "Prediction", example=EXAMPLE)
        },
        "/v1/predict/batch": {"post": _batch()},
        "/v1/explain": {
            "post": _operation(
                "explain",
                "One listing, with what every field contributed",
                "Listing",
                "Explanation",
                ("501",),
                example=EXAMPLE,
            )
        },
        "/v1/model": {"get": _operation("model", "The model in force", None, "Model")},
        "/healthz": {"get": _open(_operation("healthz", "Whether the process answers", None, "Health", errors=()))},
        "/readyz": {
            "get": _open(_operation("readyz", "Whether a model is loaded", None, "Health", ("503",), errors=()))
        },
        **_v2_paths(),
    }


def _v2_paths() -> Json:
    """The Open Inference Protocol, as far as it is answered."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "listing-price"}
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    paths: Json = {
        "/v2": {"get": _operation("v2", "Open Inference Protocol: the server", None, "Object")},
        "/v2/health/live": {
            "get": _open(_operation("v2_live", "Open Inference Protocol: liveness", None, "Object", errors=()))
        },
        "/v2/health/ready": {
            "get": _open(
                _operation("v2_ready", "Open Inference Protocol: readiness", None, "Object", ("503",), errors=())
            )
        },
    }
    for prefix, suffix, parameters in (
        ("/v2/models/{model}", "", [name]),
        ("/v2/models/{model}/versions/{version}", "_version", [name, version]),
    ):
        metadata = _operation(
            f"v2_model{suffix}", "Open Inference Protocol: inputs and outputs", None, "Object", ("404",)
        )
        ready = _operation(
            f"v2_model_ready{suffix}", "Open Inference Protocol: readiness of the model", None, "Object", ("404",)
        )
        infer = _operation(
            f"v2_infer{suffix}",
            "Open Inference Protocol: inference",
            "InferenceRequest",
            "Object",
            ("400", "404", "413"),
        )
        for path, method, operation in (
            (prefix, "get", metadata),
            (f"{prefix}/ready", "get", ready),
            (f"{prefix}/infer", "post", infer),
        ):
            paths[path] = {method: {**operation, "parameters": parameters}}
    return paths


def _operation(
    name: str,
    summary: str,
    body: str | None,
    answer: str,
    more: tuple[str, ...] = (),
    *,
    example: Any = None,
    errors: tuple[str, ...] | None = None,
) -> Json:
    usual = ("400", "401", "408", "413", "422", "500", "503") if body else ("401", "500", "503")
    codes = sorted({*(usual if errors is None else errors), *more})
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "The answer.", "content": {JSON: {"schema": _ref(answer)}}},
            **{code: {"$ref": f"#/components/responses/{code}"} for code in codes},
        },
    }
    if body:
        content: Json = {"schema": _ref(body)}
        if example:
            content["example"] = example
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    return operation


def _open(operation: Json) -> Json:
    """Answered without a key."""
    return {**operation, "security": []}


def _batch() -> Json:
    operation = _operation(
        "predict_batch", "Many listings, one result or error each, in order", "Listings", "Results", ("415",)
    )
    binary = {
        "schema": {"type": "string", "format": "binary", "description": "An Arrow stream: a column for each field."}
    }
    operation["requestBody"]["content"][JSON]["example"] = {"listings": [EXAMPLE]}
    operation["requestBody"]["content"][ARROW] = binary
    operation["responses"]["200"]["content"][ARROW] = binary
    return operation


def _schemas(max_rows: int) -> Json:
    shares = {
        "type": "object",
        "additionalProperties": {"type": "number"},
        "description": "The probability of every category.",
    }
    prediction = {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "price_category": {"type": "string"},
            "probabilities": shares,
            "model": {"type": "string", "description": "NAME@VERSION that gave the answer."},
        },
        "required": ["id", "price_category", "probabilities", "model"],
        "example": _ANSWER,
    }
    per_field = {"type": "object", "properties": {name: {"type": "number"} for name in FEATURES}}
    explanation = {
        "allOf": [
            _ref("Prediction"),
            {
                "type": "object",
                "properties": {
                    "unit": {"const": "log-odds"},
                    "base": shares | {"description": "The score of every category before any field is known."},
                    "contributions": {
                        "type": "object",
                        "additionalProperties": per_field,
                        "description": "By category, then field.",
                    },
                },
                "required": ["unit", "base", "contributions"],
            },
        ]
    }
    failed = {
        "type": "object",
        "properties": {"id": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "error": _ref("ErrorBody")},
        "required": ["id", "error"],
    }
    return {
        "Listing": listing_schema(),
        "Listings": {
            "type": "object",
            "properties": {
                "listings": {
                    "type": "array",
                    "items": {},
                    "maxItems": max_rows,
                    "description": "Each a Listing; a wrong one fails alone.",
                }
            },
            "required": ["listings"],
            "additionalProperties": False,
        },
        "Prediction": prediction,
        "Explanation": explanation,
        "Results": {
            "type": "object",
            "properties": {
                "results": {"type": "array", "items": {"anyOf": [_ref("Prediction"), failed]}},
                "model": {"type": "string"},
            },
            "required": ["results", "model"],
        },
        "Model": {
            "type": "object",
            "properties": {"model": {"type": "string"}, "reference": {"type": "string"}},
            "required": ["model", "reference"],
        },
        "Health": {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]},
        "Object": {"type": "object"},
        "InferenceRequest": {
            "type": "object",
            "properties": {"inputs": {"type": "array", "items": {"type": "object"}}},
            "required": ["inputs"],
        },
        **_error_schemas(),
    }


def _error_schemas() -> Json:
    problem = {
        "type": "object",
        "properties": {
            "field": {"type": "string"},
            "problem": {"type": "string"},
            "reason": {"type": "string", "description": "field:problem, as in rejected rows."},
            "found": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "expected": {"type": "string"},
            "message": {"type": "string"},
        },
        "required": ["field", "problem", "reason", "expected", "message"],
    }
    body = {
        "type": "object",
        "properties": {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "problems": {"type": "array", "items": _ref("Problem")},
            "request_id": {"type": "string"},
        },
        "required": ["code", "message"],
    }
    # The Open Inference Protocol wants a text.
    error = {
        "type": "object",
        "properties": {"error": {"anyOf": [_ref("ErrorBody"), {"type": "string"}]}},
        "required": ["error"],
    }
    return {"Problem": problem, "ErrorBody": body, "Error": error}


def _responses() -> Json:
    said = {
        "400": "The body can't be read.",
        "401": "A key is needed, or is not known.",
        "404": "There is nothing here.",
        "408": "The body took too long, or the answer.",
        "413": "The body, or the number of listings, is over the limit.",
        "415": "The body is of a kind that is not read.",
        "422": "Wrong fields, all of them named.",
        "500": "A fault of the service.",
        "501": "The model can't explain itself.",
        "503": "No model yet, or too much to do: try again after Retry-After seconds.",
    }
    return {code: {"description": text, "content": {JSON: {"schema": _ref("Error")}}} for code, text in said.items()}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
