"""Evaluation: streamed counts are those of all rows at once; rows that can't be scored are told apart."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.data

from nightprice.errors import ContractError
from pipeline.datasets import open_dataset
from pipeline.evaluation.evaluate import EvaluationError, count, evaluate, evaluate_dataset, evaluation_columns
from pipeline.evaluation.metrics import summary
from pipeline.split import Split
from registry.artifact import Artifact, load_artifact
from tests.support.accepted_listings import accepted_listings, write_dataset
from tests.support.tiny_model import tiny_artifact
from transforms.contract import Bands
from transforms.listings import CONTRACT


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return load_artifact(tiny_artifact(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return accepted_listings(1_000)


def test_streamed_counts_are_those_of_all_rows(
    ray_session: None, artifact: Artifact, table: pa.Table, tmp_path: Path
) -> None:
    dataset = open_dataset(write_dataset(tmp_path, table, files=4), CONTRACT)
    assert (
        evaluate_dataset(artifact, dataset)["confusion"]
        == summary(count(table, artifact, CONTRACT), artifact.label)["confusion"]
    )
    split = Split(0.3)
    held = table.filter(pa.array(split.is_holdout(table["id"].to_numpy())))
    assert (
        evaluate_dataset(artifact, dataset, split)["confusion"]
        == summary(count(held, artifact, CONTRACT), artifact.label)["confusion"]
    )


def test_the_truth_is_the_category_of_the_price(artifact: Artifact, table: pa.Table) -> None:
    truth = count(table, artifact, CONTRACT).confusion.sum(axis=1)
    assert truth.tolist() == [table[CONTRACT.label_name].to_pylist().count(label) for label in artifact.labels]


def test_a_model_is_judged_by_its_own_bins(table: pa.Table, tmp_path: Path) -> None:
    label = CONTRACT.label.override(bins=(50.0, 60.0, 70.0))
    assert isinstance(label, Bands)
    other = load_artifact(tiny_artifact(tmp_path / "other", label=label.as_json()))
    truth = count(table, other, CONTRACT).confusion.sum(axis=1)
    assert (
        truth.tolist()
        == np.bincount(np.digitize(table["price"].to_numpy(), label.bins, right=True), minlength=4).tolist()
    )


def with_neighbourhoods(table: pa.Table, names: pa.Array) -> pa.Table:
    replaced = table.set_column(table.column_names.index("neighbourhood"), "neighbourhood", names)
    return replaced.select(list(evaluation_columns(CONTRACT)))


def test_unknown_neighbourhoods_are_counted_and_are_in_no_metric(
    ray_session: None, artifact: Artifact, table: pa.Table
) -> None:
    names = pa.array(["Atlantis"] * 30 + table["neighbourhood"].to_pylist()[30:])
    strange = with_neighbourhoods(table, names)
    found = evaluate(artifact, ray.data.from_arrow(strange), CONTRACT)
    assert found["unscorable"] == {"neighbourhood:unknown": 30}
    assert found["rows"] == 970
    assert "Atlantis" not in [entry["value"] for entry in found["segments"]["neighbourhood"]]


def test_rows_of_another_city_are_one_clear_error(ray_session: None, artifact: Artifact, table: pa.Table) -> None:
    names = pa.array(["Kowloon"] * len(table))
    strange = with_neighbourhoods(table, names)
    with pytest.raises(EvaluationError, match=r"can't score any of the rows: neighbourhood:unknown \(1,000\)"):
        evaluate(artifact, ray.data.from_arrow(strange), CONTRACT)


def test_a_dataset_without_prices_is_refused(artifact: Artifact, table: pa.Table, tmp_path: Path) -> None:
    uri = write_dataset(tmp_path, table.drop_columns(["price", CONTRACT.label_name]), model="listing-price@1")
    with pytest.raises(ContractError, match='has no "price" to compare with'):
        evaluate_dataset(artifact, open_dataset(uri, CONTRACT))
