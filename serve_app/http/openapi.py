"""The OpenAPI document: openapi.json, with what follows from the contract and the model in force filled in."""

import json
from importlib.resources import files
from typing import Any

import pyarrow as pa

from serve_app.http.wire import JSON
from serve_app.model.record import (
    MAX_EXACT_INTEGER,
    MAX_LIST_ITEMS,
    MAX_TEXT_CHARACTERS,
    inputs_of,
    known_example,
)
from serve_app.protocols.v2 import datatype
from transforms.contract import Contract, Field, Label
from transforms.encode import Matrix, Vocabulary

Json = dict[str, Any]


def document(
    contract: Contract,
    label: Label | None = None,
    vocabulary: Vocabulary | None = None,
    rows: Matrix | None = None,
    *,
    version: str = "0",
    max_rows: int = 1,
    needs_key: bool = False,
) -> Json:
    """The whole document. `label`, `vocabulary` and `rows` (golden ones) are those of the model in force; without one,
    the contract's label and example are described.

    >>> from transforms.listings import CONTRACT
    >>> document(CONTRACT)["components"]["schemas"]["Record"]["required"][0]
    'id'
    """
    whole = _static_part()
    example = known_example(contract, vocabulary, rows)
    purpose = f"Predicts the {contract.label_name} of one {contract.record} or of many {contract.records}."
    description = f"{purpose} {whole['info']['description']}"
    whole["info"] |= {"version": version, "description": description, "x-contract": _summary(contract)}
    schemas = whole["components"]["schemas"]
    schemas["Record"] = record_schema(contract, example)
    schemas["Records"] = _records_schema(contract, max_rows)
    _describe_answers(schemas, contract, (label or contract.label).labels, example)
    _add_examples(whole["paths"], contract, example)
    if needs_key:
        whole["security"] = [{"bearer": []}, {"header": []}]
    return whole


def paths_without_key() -> set[str]:
    """The paths that the document declares open to everybody, by `"security": []`: health, for whoever monitors."""
    paths: dict[str, Json] = _static_part()["paths"]
    return {path for path, methods in paths.items() if any(one.get("security") == [] for one in methods.values())}


def _static_part() -> Json:
    whole: Json = json.loads((files("serve_app.http") / "openapi.json").read_bytes())
    return whole


def record_schema(contract: Contract, example: Json) -> Json:
    """The JSON Schema of a record."""
    inputs = inputs_of(contract)
    text: Json = {"type": "string", "maxLength": MAX_TEXT_CHARACTERS}
    texts: Json = {"anyOf": [{"type": "array", "items": text, "maxItems": MAX_LIST_ITEMS}, {"type": "null"}]}
    lists = {column.name: {"description": column.description, **texts} for column in contract.lists}
    return {
        "type": "object",
        "description": f"A {contract.record}, without its target. A true-or-false field of a list is false if absent.",
        "properties": {item.name: field_schema(item) for item in inputs} | lists,
        "required": [item.name for item in inputs if item.required],
        "additionalProperties": False,
        "example": example,
    }


def field_schema(item: Field) -> Json:
    """The JSON Schema of one field's value, as `value_reader` reads it.

    >>> field_schema(Field("size", ("size",), int, pa.int16(), "Size.", low=1, high=9, required=True))
    {'description': 'Size.', 'type': 'integer', 'minimum': 1, 'maximum': 9}
    """
    kinds = _kinds(item) + ([] if item.required else [{"type": "null"}])
    return {"description": item.description, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}


def _kinds(item: Field) -> list[Json]:
    if pa.types.is_boolean(item.type):
        return [{"type": "boolean"}, {"type": "integer", "enum": [0, 1]}]
    if item.is_text:
        # Allowed values may have spaces around them, as raw data has; the document names the plain ones.
        if item.allowed:
            return [{"type": "string", "enum": list(item.allowed)}]
        text: Json = {"type": "string", "maxLength": MAX_TEXT_CHARACTERS}
        return [{**text, "pattern": r"\S"} if item.required else text]
    kind: Json = {"type": "integer" if pa.types.is_integer(item.type) else "number"}
    kind |= {name: bound for name, bound in (("minimum", item.low), ("maximum", item.high)) if bound is not None}
    if item.high is not None and item.high > MAX_EXACT_INTEGER:
        kind["format"] = "int64"
    return [kind]


def _summary(contract: Contract) -> Json:
    """What the page needs to know of the contract."""
    return {
        "name": contract.name,
        "version": contract.version,
        "record": contract.record,
        "records": contract.records,
        "key": contract.key,
        "label": contract.label_name,
        "lists": [column.name for column in contract.lists],
        "known_values_only": list(contract.strict),
    }


def _records_schema(contract: Contract, max_rows: int) -> Json:
    records = {
        "type": "array",
        "items": {},
        "maxItems": max_rows,
        "description": "Each is a Record; a wrong one fails alone.",
    }
    return {
        "type": "object",
        "properties": {contract.records: records},
        "required": [contract.records],
        "additionalProperties": False,
    }


def _describe_answers(schemas: Json, contract: Contract, labels: tuple[str, ...], example: Json) -> None:
    key: Json = {contract.key: {"anyOf": [{"type": "integer"}, {"type": "null"}]}}
    schemas["Failure"]["properties"] = key | schemas["Failure"]["properties"]
    schemas["Failure"]["required"].insert(0, contract.key)
    prediction = schemas["Prediction"]
    prediction["properties"] = key | {contract.label_name: {"enum": list(labels)}} | prediction["properties"]
    prediction["required"] = [contract.key, contract.label_name, *prediction["required"]]
    prediction["example"] = {
        contract.key: example.get(contract.key),
        contract.label_name: labels[0],
        "probabilities": {label: 1 / len(labels) for label in labels},
        "model": f"{contract.name}@VERSION",
    }
    share = {"type": "object", "properties": {name: {"type": "number"} for name in contract.features}}
    schemas["Explanation"]["allOf"][1]["properties"]["contributions"]["additionalProperties"] = share


def _add_examples(paths: Json, contract: Contract, example: Json) -> None:
    tensors = [_tensor(item, example[item.name]) for item in inputs_of(contract) if item.name in example]
    examples = {
        "/v1/predict": example,
        "/v1/explain": example,
        "/v1/predict/batch": {contract.records: [example]},
        "/v2/models/{model}/infer": {"inputs": tensors},
        "/v2/models/{model}/versions/{version}/infer": {"inputs": tensors},
    }
    for path, value in examples.items():
        paths[path]["post"]["requestBody"]["content"][JSON]["example"] = value
    for operations in paths.values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "model":
                    parameter["example"] = contract.name


def _tensor(item: Field, value: Any) -> Json:
    kind = datatype(item)
    return {"name": item.name, "datatype": kind, "shape": [1], "data": [bool(value) if kind == "BOOL" else value]}
