"""Contributions from the trees themselves: those of XGBoost, computed without it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from pipeline.train.boosting import tree_arrays
from registry.artifact import load_artifact
from registry.errors import ArtifactError
from registry.trees import TREES, TreeArrays
from serve_app.model.explain import Explainer, load_explainer, no_explanation
from serve_app.model.shap import TreeShap
from tests.support.format1 import old_model
from tests.support.paths import ROOT
from tests.support.serving.models import boosted_artifact
from tests.support.training_libraries import TRAINING
from transforms.listings import CONTRACT

FIELDS = len(CONTRACT.features)


def booster(depth: int, rounds: int, rows: int = 3_000, **parameters: Any) -> tuple[xgboost.Booster, Any]:
    """A booster of four categories, and its rows: few distinct values, so that many meet a threshold, one in five
    missing.
    """
    random = np.random.default_rng(depth)
    features = random.integers(0, 6, (rows, FIELDS)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] * (features[:, 2] > 2) + random.integers(0, 2, rows)).astype(int) % 4
    features[random.random(features.shape) < 0.2] = np.nan
    options = {
        "objective": "multi:softprob",
        "num_class": 4,
        "base_score": 0.5,
        "max_depth": depth,
        "nthread": 1,
        **parameters,
    }
    return xgboost.train(options, xgboost.DMatrix(features, labels), rounds), features


@pytest.mark.parametrize(
    ("depth", "rounds", "parameters"),
    [
        (1, 1, {}),
        (6, 40, {}),
        (12, 3, {"min_child_weight": 0}),
        # Trees that are one leaf.
        (3, 2, {"gamma": 1e9}),
        (3, 2, {"base_score": 2.0}),
    ],
)
def test_they_are_those_of_xgboost(depth: int, rounds: int, parameters: dict[str, Any]) -> None:
    model, features = booster(depth, rounds, **parameters)
    trees = TreeShap(TreeArrays.from_bytes(tree_arrays(model, 4).to_bytes()), 4, FIELDS)

    ours = [np.column_stack([trees.contributions(row), trees.base]) for row in features[:50]]

    assert np.array(ours) == pytest.approx(model.predict(xgboost.DMatrix(features[:50]), pred_contribs=True), abs=1e-5)


def test_trees_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    artifact = load_artifact(boosted_artifact(tmp_path / "model"))
    whole = artifact.file(TREES)
    assert whole

    for content in (whole[: len(whole) // 2], b"", b"{}", b"no model"):
        with pytest.raises(ArtifactError, match=r"trees\.npz can't be used: not a file of trees"):
            Explainer(artifact, content)


def test_trees_of_another_model_are_refused(tmp_path: Path) -> None:
    first, other = (load_artifact(boosted_artifact(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    trees = other.file(TREES)
    assert trees

    with pytest.raises(ArtifactError, match=r"trees\.npz and model\.onnx are different models"):
        Explainer(first, trees)


def test_a_model_of_format_1_is_told_from_one_without_trees(tmp_path: Path) -> None:
    old = load_artifact(old_model(tmp_path / "old"))

    assert load_explainer(old) is None
    answer = no_explanation(old)
    assert (answer.status, answer.code) == (501, "no_explanation")
    assert "was trained in format 1, whose trees are not read any more. Train it again." in str(answer)


def test_trees_that_changed_are_refused(tmp_path: Path) -> None:
    artifact = load_artifact(boosted_artifact(tmp_path / "model"))
    (artifact.folder / TREES).write_bytes(b"changed")

    with pytest.raises(ArtifactError, match=r"trees\.npz has changed since the model was written"):
        load_explainer(artifact)


def test_the_service_needs_no_training_library(tmp_path: Path) -> None:
    """As in the image `serving`: there, none of them is installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(TRAINING | {'scipy', 'joblib'})!r}))\n"
        "import pipeline.cli.commands, serve_app.deployment.run, serve_app.app\n"
        "from registry.artifact import load_artifact; from serve_app.model.explain import load_explainer\n"
        "from pathlib import Path; model = load_artifact(Path(sys.argv[1]))\n"
        "print(sorted(load_explainer(model).explain(model.golden.features[0])))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(boosted_artifact(tmp_path / "model"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "contributions" in done.stdout, done.stderr
