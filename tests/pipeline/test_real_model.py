"""Real listings of New York: the notebook's forest gives the notebook's figures, the default model beats them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.process import process
from pipeline.settings import Settings
from pipeline.train.train import train
from tests.support.paths import TEST_DATA, needs_test_data

NEW_YORK = TEST_DATA / "nyc_2021-12-04"
pytestmark = needs_test_data


@pytest.fixture(scope="module")
def folder(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new_york")
    manifest = process(str(NEW_YORK / "listings_reconstructed.csv.gz"), str(folder / "data"), Settings())
    assert manifest["rows"]["accepted"] == 31_841
    return folder


def trained(folder: Path, estimator: str) -> dict[str, Any]:
    ids = str(NEW_YORK / "notebook_test_ids.csv")
    result = train(
        str(folder / "data"),
        estimator=estimator,
        holdout_ids=ids,
        registry=str(folder / "registry"),
        settings=Settings(),
    )
    metrics: dict[str, Any] = result["metrics"]
    return metrics


def test_the_forest_gives_the_figures_of_the_notebook(folder: Path) -> None:
    metrics = trained(folder, "random_forest")
    assert metrics["accuracy"] == pytest.approx(0.603, abs=0.005)
    assert metrics["macro_f1"] == pytest.approx(0.537, abs=0.005)
    assert metrics["roc_auc"] == pytest.approx(0.818, abs=0.005)


def test_the_default_model_beats_them(folder: Path) -> None:
    metrics = trained(folder, "xgboost")
    assert metrics["accuracy"] >= 0.70
    assert metrics["macro_f1"] >= 0.645
    assert metrics["roc_auc"] >= 0.885
