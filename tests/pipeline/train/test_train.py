"""Training on Ray: from a dataset to a published version, on one worker and on two."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nightprice.errors import ContractError, UsageError
from pipeline.progress import Progress, watched
from pipeline.settings import ForestSettings, Settings, XGBoostSettings
from pipeline.split import Split
from pipeline.train.statistics import TrainingError
from pipeline.train.train import train
from registry.artifact import Artifact
from registry.registry import Registry
from tests.support.accepted_listings import accepted_listings, write_dataset
from tests.support.tiny_model import FIRST, NAME, tiny_artifact
from transforms.listings import CONTRACT

ROWS = 3_000
SETTINGS = Settings(xgboost=XGBoostSettings(rounds=60, max_depth=4), random_forest=ForestSettings(trees=12))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return accepted_listings(ROWS)


@pytest.fixture(scope="module")
def data(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"), table)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def boosted(ray_session: None, data: str, registry: str) -> dict[str, Any]:
    return train(data, registry=registry, settings=SETTINGS)


@pytest.fixture(scope="module")
def forest(
    boosted: dict[str, Any], data: str, registry: str, table: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Trained with a file that names just the listings which the hash holds out, and one that is not there."""
    ids = table["id"].to_numpy()
    held = ids[Split(SETTINGS.holdout_share).is_holdout(ids)]
    file = tmp_path_factory.mktemp("ids") / "holdout.csv"
    file.write_text("\n".join(["id", *map(str, held), "17"]))
    options = {"holdout_ids": str(file), "compare": boosted["model"]}
    return train(data, estimator="random_forest", registry=registry, settings=SETTINGS, **options)


def load(registry: str, result: dict[str, Any]) -> Artifact:
    return Registry(registry).load(result["model"])


def test_a_model_is_published_with_all_that_its_users_need(
    boosted: dict[str, Any], registry: str, table: pa.Table
) -> None:
    artifact = load(registry, boosted)
    manifest = artifact.manifest
    held = Split(SETTINGS.holdout_share).is_holdout(table["id"].to_numpy())
    assert manifest["evaluation"]["rows"] == int(held.sum()) == manifest["split"]["holdout_rows"]
    assert manifest["split"]["training_rows"] == int((~held).sum())
    assert manifest["metrics"] == boosted["metrics"] == manifest["evaluation"]["metrics"]
    assert sum(manifest["importance"].values()) == pytest.approx(1)
    assert {path.name for path in artifact.folder.iterdir()} == {
        "manifest.json",
        "model.onnx",
        "golden.json",
        "trees.npz",
        "report.html",
    }
    assert boosted["report"] == str(artifact.folder / "report.html")
    assert "<html" in Path(boosted["report"]).read_text("utf-8")


def test_it_learned_something(boosted: dict[str, Any]) -> None:
    metrics = boosted["metrics"]
    assert metrics["accuracy"] > metrics["majority_accuracy"] + 0.15
    assert metrics["roc_auc"] > 0.85


def test_the_same_data_seed_and_worker_give_the_same_model(boosted: dict[str, Any], data: str, registry: str) -> None:
    told: list[Progress] = []
    with watched(told.append):
        again = train(data, registry=registry, settings=SETTINGS)
    assert again["metrics"] == boosted["metrics"]
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == [
        "learning the vocabulary",
        "reading the training rows",
        "binning",
        "boosting",
        "checking the export",
        f"evaluating {again['model']}",
    ]
    last = [progress for progress in told if progress.stage == "boosting"][-1]
    assert last.counts == last.totals == {"rounds": 60}
    assert last.note.startswith("validation log loss 0.")
    assert file(registry, again, "model.onnx") == file(registry, boosted, "model.onnx")


def test_two_workers_train_one_model_on_their_halves(boosted: dict[str, Any], data: str, registry: str) -> None:
    told: list[Progress] = []
    with watched(told.append):
        halves = train(data, workers=2, registry=registry, settings=SETTINGS)
    manifest = load(registry, halves).manifest
    assert manifest["training"]["workers"] == 2
    assert {"starting the workers", "learning the vocabulary"} < {progress.stage for progress in told}
    assert manifest["split"]["training_rows"] % 2 == 1, "an even number would lose no row to equal halves anyway"
    assert halves["metrics"]["log_loss"] == pytest.approx(boosted["metrics"]["log_loss"], abs=0.03)


def test_the_forest_does_not_depend_on_the_number_of_workers(forest: dict[str, Any], data: str, registry: str) -> None:
    halves = train(data, estimator="random_forest", workers=2, registry=registry, settings=SETTINGS)
    assert file(registry, halves, "model.onnx") == file(registry, forest, "model.onnx")
    assert load(registry, halves).manifest["training"]["trees"] == 12


def test_another_model_is_compared_on_the_same_rows(
    forest: dict[str, Any], boosted: dict[str, Any], registry: str
) -> None:
    manifest = load(registry, forest).manifest
    (other,) = manifest["comparison"]
    assert boosted["model"] in other["name"]
    assert other["metrics"] == boosted["metrics"]
    assert other["rows"] == manifest["evaluation"]["rows"] == forest["rows"]["measured"]
    assert forest["comparison"] == [other]


def test_a_named_holdout_is_held_out_and_kept_with_the_model(
    forest: dict[str, Any], registry: str, table: pa.Table
) -> None:
    artifact = load(registry, forest)
    ids = table["id"].to_numpy()
    assert artifact.manifest["split"]["kind"] == "ids"
    assert (
        Split.of_model(artifact.manifest, artifact.folder).is_holdout(ids)
        == Split(SETTINGS.holdout_share).is_holdout(ids)
    ).all()


def file(registry: str, result: dict[str, Any], name: str) -> bytes:
    return (load(registry, result).folder / name).read_bytes()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "xgbost"}, 'no estimator "xgbost". Did you mean "xgboost"'),
        ({"workers": 0}, "0 workers"),
        ({"holdout_ids": "nowhere.csv"}, "nowhere.csv"),
        (
            {"settings": SETTINGS.override(bins=(100.0, 200.0, 300.0))},
            "ask for Low, Mid, High, Lux at 100, 200, 300, minimum 10, but",
        ),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(data: str, registry: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        train(data, **{"registry": registry, "settings": SETTINGS, **options})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": CONTRACT.label.override(bins=(50.0, 60.0, 70.0)).as_json()}, "have different bins or labels"),
        ({"vocabulary": {"neighbourhood": {"Kadıköy": 1}, "property_type": {}, "room_type": {}}}, "share no"),
    ],
)
def test_a_model_that_means_something_else_is_not_set_beside(
    ray_session: None, data: str, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.publish(tiny_artifact(tmp_path / "model", FIRST, **change), NAME)

    with pytest.raises(UsageError, match=problem):
        train(data, registry=registry.uri, settings=SETTINGS, compare=f"{NAME}@{FIRST}")
    assert len(registry.versions(NAME)) == 1


def test_a_dataset_without_prices_is_refused(tmp_path: Path, registry: str, table: pa.Table) -> None:
    scored = write_dataset(tmp_path, table.drop_columns(["price", "price_category"]), model="listing-price@1")
    with pytest.raises(ContractError, match=r"has no \"price\" to compare with"):
        train(scored, registry=registry, settings=SETTINGS)


def test_too_few_rows_are_refused_and_nothing_is_published(ray_session: None, tmp_path: Path, table: pa.Table) -> None:
    few = write_dataset(tmp_path / "data", table.slice(0, 50))
    with pytest.raises(TrainingError, match="Too few rows"):
        train(few, registry=str(tmp_path / "registry"), settings=SETTINGS)
    assert not (tmp_path / "registry").exists()


@pytest.mark.usefixtures("ray_session")
def test_a_text_of_too_many_values_is_no_category(data: str, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.train.statistics.MOST_CATEGORIES", 2)

    with pytest.raises(TrainingError, match=r'The field "\w+" has more than 2 different values, too many for'):
        train(data, registry=registry, settings=SETTINGS)
