"""The Open Inference Protocol: JSON by hand, binary by Triton's own client with its defaults."""

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton

from registry.registry import Registry
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import ModelReloader
from serve_app.protocols.v2 import datatype
from tests.support.accepted_listings import accepted_listings
from tests.support.serving.client import Client, client_of
from tests.support.serving.models import as_listings, registry_with
from tests.support.serving.requests import EXAMPLE, INFER, tensor
from tests.support.tiny_model import FIRST, NAME, SECOND
from transforms.listings import CONTRACT


def challenge(**changed: Any) -> dict[str, Any]:
    flags = {"tv": True, "elevator": True, "internet": False}
    return {"inputs": [tensor(name, [value]) for name, value in {**EXAMPLE, **flags, **changed}.items()]}


def test_health_and_metadata(client: Client) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"/v2/models/{NAME}/ready").json() == {"name": NAME, "ready": True}
    metadata = client.get(f"/v2/models/{NAME}").json()
    assert [item["name"] for item in metadata["inputs"]] == ["id", *CONTRACT.features]
    assert {item["name"]: item["datatype"] for item in metadata["outputs"]} == {
        CONTRACT.label_name: "BYTES",
        "probabilities": "FP32",
    }
    assert client.get(f"/v2/models/{NAME}/versions/{FIRST}").status_code == 200


def test_json_gives_what_predict_gives(client: Client) -> None:
    expected = client.post("/v1/predict", EXAMPLE).json()

    body = client.post(INFER, {"id": "me", **challenge()}).json()

    assert (body["model_name"], body["model_version"], body["id"]) == (NAME, FIRST, "me")
    category, probabilities = body["outputs"]
    assert (category["data"], category["shape"]) == ([expected["price_category"]], [1])
    assert probabilities["data"] == list(expected["probabilities"].values())
    assert probabilities["shape"] == [1, 4]


def test_other_shapes_types_and_missing_values(client: Client) -> None:
    expected = client.post(INFER, challenge()).json()["outputs"]
    other = challenge()
    by_name = {item["name"]: item for item in other["inputs"]}
    by_name["tv"].update(datatype="INT64", data=[1])
    by_name["beds"].update(datatype="INT64", data=[[2]], shape=[1, 1])
    other["inputs"] += [tensor("property_type", [""]), tensor("heating", [None])]

    assert client.post(INFER, other).json()["outputs"] == expected


def test_tritons_client_with_its_defaults(client: Client, address: str) -> None:
    table = accepted_listings(200, seed=9)
    listings = as_listings(table)
    expected = client.post("/v1/predict/batch", {"listings": listings}).json()["results"]
    inputs = []
    for name in ("id", *CONTRACT.features):
        kind = datatype(CONTRACT.by_name[name])
        values = table[name].to_pylist()
        array = (
            np.array([(value or "").encode() for value in values], np.object_)
            if kind == "BYTES"
            else np.array([np.nan if value is None else value for value in values], triton.triton_to_np_dtype(kind))
        )
        inputs.append(triton.InferInput(name, array.shape, kind))
        inputs[-1].set_data_from_numpy(array)

    with triton.InferenceServerClient(urlsplit(address).netloc) as remote:
        assert remote.is_server_live()
        assert remote.is_server_ready()
        assert remote.is_model_ready(NAME)
        assert remote.get_model_metadata(NAME)["versions"] == [FIRST]
        result = remote.infer(NAME, inputs)

    label = CONTRACT.label_name
    assert [text.decode() for text in result.as_numpy(label)] == [answer[label] for answer in expected]
    probabilities = np.array([list(answer["probabilities"].values()) for answer in expected], np.float32)
    assert np.array_equal(result.as_numpy("probabilities"), probabilities)


@pytest.mark.parametrize("binary", [False, True])
def test_nan_is_missing_however_it_is_sent(client: Client, binary: bool) -> None:
    request = challenge()
    inputs = [request["inputs"][0], tensor("beds", [float("nan")]), tensor("latitude", [float("nan")])]
    names = {item["name"] for item in inputs}
    inputs += [item for item in request["inputs"] if item["name"] not in names]
    content, headers = json.dumps({"inputs": inputs}).encode(), {}
    if binary:
        inputs[1] = {**inputs[1], "parameters": {"binary_data_size": 4}}
        del inputs[1]["data"]
        head = json.dumps({"inputs": inputs}).encode()
        content = head + np.array([np.nan], "<f4").tobytes()
        headers = {"inference-header-content-length": str(len(head))}

    answer = client.post(INFER, content=content, headers=headers)

    # A number that may be missing is; one that may not is named.
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "Row 0: latitude: it is missing, expected a number from -90 to 90.",
    )


def test_infinity_is_not_a_value(client: Client) -> None:
    request = {"inputs": [tensor("beds", [float("inf")])]}

    answer = client.post(INFER, content=json.dumps(request).encode())

    assert (answer.status_code, answer.json()["error"]) == (400, "beds: a value is not of the datatype FP32.")


def wrong(**changed: Any) -> dict[str, Any]:
    request = challenge()
    request["inputs"][1].update(changed)
    return request


@pytest.mark.parametrize(
    "request_",
    [
        {},
        [],
        {"inputs": []},
        {"inputs": [{}]},
        {"inputs": [5]},
        {"inputs": challenge()["inputs"] * 2},
        {"inputs": challenge()["inputs"][1:]},
        wrong(shape=[2]),
        wrong(shape=[1, 4]),
        wrong(shape=[-1]),
        wrong(shape=[2**50]),
        wrong(shape="1"),
        wrong(datatype="FP128"),
        wrong(datatype="BYTES"),
        wrong(data=None),
        wrong(data=["4"]),
        wrong(data=[10**30]),
        wrong(data=[True]),
        wrong(data={"a": 1}),
        wrong(name="price"),
        wrong(parameters={"binary_data_size": 8}),
        wrong(parameters={"binary_data_size": -1}),
        {**challenge(), "outputs": [{"name": "nothing"}]},
        challenge(room_type="Flat"),
        challenge(neighbourhood="Atlantis"),
    ],
)
def test_what_is_wrong_is_the_clients_error(client: Client, request_: Any) -> None:
    answer = client.post(INFER, request_)

    assert answer.status_code == 400, answer.text
    assert isinstance(answer.json()["error"], str)


def test_broken_binary_is_the_clients_error(client: Client) -> None:
    head = challenge()
    head["inputs"][2] = {"name": "room_type", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 19}}
    header = json.dumps(head).encode()

    def post(tail: bytes, length: Any = None) -> int:
        headers = {"inference-header-content-length": str(len(header) if length is None else length)}
        return client.post(INFER, content=header + tail, headers=headers).status_code

    assert post(b"\x0f\0\0\0Entire home/apt") == 200
    assert post(b"\xff\0\0\0Entire home/apt") == 400
    assert post(b"\x0f\0\0\0Entire home/ap") == 400
    assert post(b"\x0f\0\0\0Entire home/apt!") == 400
    assert post(b"\x0f\0\0\0Entire home/ap\xff") == 400
    assert post(b"\x0f\0\0\0Entire home/apt", 10**9) == 400
    assert post(b"\x0f\0\0\0Entire home/apt", "-1") == 400


def test_rows_that_are_wrong_are_named(client: Client) -> None:
    request = {"inputs": [{**item, "shape": [2], "data": item["data"] * 2} for item in challenge()["inputs"]]}
    request["inputs"][1]["data"] = [4, 99]

    answer = client.post(INFER, request)

    assert answer.status_code == 400
    assert answer.json()["error"] == "Row 1: accommodates: found 99, expected a whole number from 1 to 64."


def test_another_model_is_not_here(client: Client) -> None:
    assert client.get("/v2/models/other").status_code == 404
    assert client.post("/v2/models/other/infer", challenge()).status_code == 404
    assert client.get(f"/v2/models/{NAME}/versions/1").status_code == 404
    assert client.get("/v2/nothing").status_code == 404


def test_a_model_that_changes_within_a_request_does_not_answer_it(tmp_path: Path) -> None:
    """The version that is checked is the version that answers."""
    registry = registry_with(tmp_path, [FIRST, SECOND])
    first, second = (following(registry, f"{NAME}@{version}") for version in (FIRST, SECOND))

    class ChangesEveryTime(ModelReloader):
        """Another model is in force each time it is asked for."""

        in_turn = itertools.cycle([first.predictor, second.predictor])

        @property
        def predictor(self) -> Predictor:
            return next(self.in_turn)

    client = client_of(ChangesEveryTime(registry, f"{NAME}@{FIRST}", CONTRACT))
    path = f"/v2/models/{NAME}/versions/{FIRST}/infer"

    answers = [client.post(path, challenge()) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 404, 200, 404]
    assert {answer.json()["model_version"] for answer in answers[::2]} == {FIRST}


def following(registry: Registry, reference: str) -> ModelReloader:
    reloader = ModelReloader(registry, reference, CONTRACT)
    reloader.poll()
    return reloader
