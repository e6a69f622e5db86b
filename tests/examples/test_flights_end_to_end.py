"""The second problem all the way, with bands and with classes: from raw rows to answers over HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import open_dataset
from pipeline.evaluation.evaluate import evaluate_dataset
from pipeline.predict import predict
from pipeline.process import process
from pipeline.settings import Settings, XGBoostSettings
from pipeline.split import Split
from pipeline.train.train import train
from registry.registry import Registry
from serve_app.model.reloader import ModelReloader
from tests.support.contracts import FLIGHT_OUTCOMES, FLIGHTS, Example
from tests.support.serving.client import Client, client_of
from transforms.clean import clean
from transforms.contract import Contract
from transforms.scored import probability_column

ROWS = 3_000


@dataclass(frozen=True)
class Way:
    """What each step left behind."""

    contract: Contract
    processed: Mapping[str, Any]
    trained: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    scored: list[dict[str, Any]]
    records: list[dict[str, Any]]
    """A few of the flights as a caller sends them."""
    client: Client


@pytest.fixture(scope="module", params=[FLIGHTS, FLIGHT_OUTCOMES], ids=str)
def way(request: pytest.FixtureRequest, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Way:
    example: Example = request.param
    contract, folder = example.contract, tmp_path_factory.mktemp(str(example))
    raw, dataset, scored = (str(folder / name) for name in ("raw.parquet", "dataset", "scored"))
    name = "CONTRACT" if example is FLIGHTS else "OUTCOMES"
    settings = Settings(
        contract=f"examples.flights:{name}", registry=str(folder / "registry"), xgboost=XGBoostSettings(rounds=30)
    )
    registry = Registry(settings.registry, folder / "cache")
    table = example.table(example.rows(ROWS))
    pq.write_table(table, raw)
    processed = process(raw, dataset, settings)
    trained = train(dataset, registry=settings.registry, settings=settings)
    artifact = registry.load(f"{contract.name}@latest")
    split = Split.of_model(artifact.manifest, artifact.folder)
    evaluated = evaluate_dataset(artifact, open_dataset(dataset, contract), split)
    registry.promote(contract.name, "latest", "champion", "a test")
    predicted = predict(f"{contract.name}@champion", raw, scored, settings)
    reloader = ModelReloader(registry, f"{contract.name}@champion", contract)
    reloader.poll()
    rows = pq.read_table(Path(scored) / "versions" / predicted["version"] / "accepted").to_pylist()
    records = clean(table.slice(0, 200), contract).accepted.to_pylist()
    return Way(contract, processed, trained, evaluated, rows, records, client_of(reloader))


def test_flights_that_did_not_arrive_are_rejected_or_a_class(way: Way) -> None:
    expected = {"arr_delay:missing": ROWS // 40} if way.contract.label_column else {}

    assert way.processed["reasons"] == expected
    assert way.processed["rows"]["read"] == ROWS
    assert way.processed["contract"] == way.contract.ref


def test_the_model_learns(way: Way) -> None:
    """The made-up flights are the later, the later in the day they leave."""
    metrics = way.evaluated["metrics"]

    assert metrics == way.trained["metrics"]
    assert metrics["accuracy"] > metrics["majority_accuracy"] + 0.05


def test_every_flight_is_scored_whether_it_arrived_or_not(way: Way) -> None:
    assert len({row["id"] for row in way.scored}) == ROWS
    assert {row[way.contract.label_name] for row in way.scored} <= set(way.contract.label.labels)


def test_http_answers_with_the_label_and_what_it_rests_on(way: Way) -> None:
    record = dict(way.contract.example)

    answer = way.client.post("/v1/predict", {**record, "id": 7}).json()
    explanation = way.client.post("/v1/explain", record).json()

    assert answer["id"] == 7
    assert answer[way.contract.label_name] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert tuple(answer["probabilities"]) == way.contract.label.labels
    assert np.isclose(sum(answer["probabilities"].values()), 1)
    assert explanation[way.contract.label_name] == answer[way.contract.label_name]
    assert way.contract.name in way.client.get("/v1/model").json()["model"]


def test_http_answers_what_batch_says(way: Way) -> None:
    batch = {row["id"]: row for row in way.scored}

    answers = way.client.post("/v1/predict/batch", {way.contract.records: way.records}).json()["results"]

    assert len(answers) == len(way.records) > 100
    for answer in answers:
        row = batch[answer["id"]]
        assert answer[way.contract.label_name] == row[way.contract.label_name]
        for label, probability in answer["probabilities"].items():
            assert np.float32(probability) == np.float32(row[probability_column(label)])


def test_a_wrong_flight_is_refused_by_name(way: Way) -> None:
    refused = way.client.post("/v1/predict", {**way.contract.example, "origin": "BOS", "month": 13})

    assert refused.status_code == 422
    reasons = {problem["reason"] for problem in refused.json()["error"]["problems"]}
    assert reasons == {"origin:not_allowed", "month:out_of_range"}
