"""The service of another contract: its fields, lists, key, label and words everywhere, and nothing of listings."""

import json
import re
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from registry.registry import Registry
from serve_app.http.wire import ARROW
from serve_app.model.reloader import ModelReloader
from tests.support.other_contract import PARCELS, parcel_model
from tests.support.serving.client import Client, client_of
from tests.support.serving.requests import stream
from tests.support.tiny_model import FIRST
from transforms.clean import clean

PARCEL = {"city": "Rome", "grams": 2}


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder = parcel_model(tmp_path_factory.mktemp("parcels") / "model")
    reloader = ModelReloader(Registry(str(folder.parent)), str(folder), PARCELS)
    reloader.poll()
    return client_of(reloader)


def test_the_contract_is_one() -> None:
    assert PARCELS.problems() == []


def test_one_record_is_answered_in_the_words_of_its_contract(parcels: Client) -> None:
    answer = parcels.post("/v1/predict", {**PARCEL, "parcel": 77}).json()

    assert list(answer) == ["parcel", "speed", "probabilities", "model"]
    assert (answer["parcel"], answer["model"]) == (77, f"parcel-speed@{FIRST}")
    assert list(answer["probabilities"]) == ["slow", "fast"]
    assert answer["speed"] in ("slow", "fast")


def test_a_joined_key_is_answered_as_it_was_sent(parcels: Client) -> None:
    keys = [77, None, 2**63 - 1]
    rows = [{**PARCEL, "parcel": key} for key in keys]

    assert parcels.post("/v1/predict", PARCEL).json()["parcel"] is None
    assert parcels.post("/v1/predict", {**PARCEL, "parcel": -1}).status_code == 422
    many = parcels.post("/v1/predict/batch", {"parcels": [*rows, PARCEL]}).json()["results"]
    assert [result["parcel"] for result in many] == [*keys, None]
    assert scored(parcels, pa.Table.from_pylist(rows))["parcel"].to_pylist() == keys
    assert scored(parcels, pa.table({"city": ["Rome"], "grams": [1]}))["parcel"].to_pylist() == [None]


def test_a_text_that_batch_can_not_read_as_a_joined_key_is_none_over_http_either(parcels: Client) -> None:
    row = {**PARCEL, "carrier": "UA\x1f15", "number": "45"}
    raw = pa.table({name: [str(value)] for name, value in row.items()})

    batch = clean(raw, PARCELS).rejected["reasons"].to_pylist()
    sent = parcels.post("/v1/predict", {**PARCEL, "parcel": "UA\x1f15\x1f45"})

    assert batch == [["parcel:unparseable"]]
    assert [problem["reason"] for problem in sent.json()["error"]["problems"]] == ["parcel:unparseable"]
    unknown = parcels.post("/v1/predict", row).json()["error"]["problems"]
    assert [problem["reason"] for problem in unknown] == ["carrier:unknown_field", "number:unknown_field"]


def test_every_list_gives_its_fields(parcels: Client) -> None:
    flags = {**PARCEL, "express": 1, "cooled": 0, "glass": 1}
    lists = {**PARCEL, "services": ["express", "other"], "contents": ["glass"]}

    expected = parcels.post("/v1/predict", flags).json()
    assert parcels.post("/v1/predict", lists).json() == expected
    assert parcels.post("/v1/predict", {**lists, "contents": ["cooled"]}).json() != expected
    columns = [scored(parcels, pa.Table.from_pylist([row])) for row in (flags, lists)]
    assert columns[0] == columns[1]


def test_errors_have_its_words(parcels: Client) -> None:
    def error(path: str, body: Any) -> Any:
        return parcels.post(path, body).json()["error"]

    wrong = error("/v1/predict", {**PARCEL, "services": "express", "city": "Oslo", "kg": 1, "grams": 0})
    assert wrong["code"] == "invalid_parcel"
    assert {problem["reason"] for problem in wrong["problems"]} == {
        "services:unparseable",
        "city:unknown",
        "kg:unknown_field",
        "grams:out_of_range",
    }
    assert error("/v1/predict", [])["problems"][0]["reason"] == "parcel:unparseable"
    assert error("/v1/predict/batch", {"listings": []})["message"].endswith('expected an object {"parcels": […]}.')


def test_tensors_have_its_names(parcels: Client) -> None:
    model = parcels.get("/v2/models/parcel-speed").json()
    document = parcels.get("/openapi.json").json()
    example = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]

    assert [item["name"] for item in model["inputs"]] == [item.name for item in PARCELS.inputs]
    assert model["parameters"] == {"labels": ["slow", "fast"], "required": ["city", "grams"]}
    answer = parcels.post("/v2/models/parcel-speed/infer", example["example"]).json()
    assert [output["name"] for output in answer["outputs"]] == ["speed", "probabilities"]


def test_the_document_is_of_the_contract_and_of_the_model_in_force(parcels: Client) -> None:
    document = parcels.get("/openapi.json").json()
    schema = document["components"]["schemas"]["Record"]

    # "Oslo" is the contract's example, but the model does not know it: it has seen other numbers, too.
    assert schema["example"] == {**PARCELS.example, "city": "Rome", "grams": 1}
    jsonschema.validate(schema["example"], schema)
    assert parcels.post("/v1/predict", schema["example"]).status_code == 200
    assert schema["required"] == ["city", "grams"]
    assert {"services", "contents"} <= set(schema["properties"])
    assert document["components"]["schemas"]["Records"]["required"] == ["parcels"]
    prediction = document["components"]["schemas"]["Prediction"]
    assert list(prediction["example"]["probabilities"]) == prediction["properties"]["speed"]["enum"] == ["slow", "fast"]
    assert not re.search(r"listing|price_|amenit", json.dumps(document))


def scored(client: Client, table: pa.Table) -> pa.Table:
    answer = client.post("/v1/predict/batch", content=stream(table), headers={"content-type": ARROW})
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()
