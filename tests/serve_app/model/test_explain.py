"""Contributions from the trees themselves: those of XGBoost, computed without it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from registry.artifact import load_artifact
from registry.errors import ArtifactError
from serve_app.model import ubjson
from serve_app.model.explain import Explainer
from serve_app.model.shap import Trees
from tests.support.paths import ROOT
from tests.support.serving.models import boosted_artifact
from tests.support.training_libraries import TRAINING
from transforms.contract import FEATURES

FIELDS = len(FEATURES)


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
    trees = Trees(ubjson.loads(bytes(model.save_raw("ubj"))), 4, FIELDS)

    found = [np.column_stack([trees.contributions(row), trees.base]) for row in features[:50]]

    assert np.array(found) == pytest.approx(model.predict(xgboost.DMatrix(features[:50]), pred_contribs=True), abs=1e-5)


def test_a_model_that_breaks_off_is_refused(tmp_path: Path) -> None:
    artifact = load_artifact(boosted_artifact(tmp_path / "model"))
    whole = (artifact.folder / "booster.ubj").read_bytes()

    for content in (whole[: len(whole) // 2], b"", b"{}", b"no model"):
        (artifact.folder / "booster.ubj").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"booster\.ubj holds no trees"):
            Explainer(artifact)


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b"{}", {}),
        (b"[TFZ]", [True, False, None]),
        (b"[#i\x02i\xffU\xff", [-1, 255]),
        (b"[i\x01[]]", [1, []]),
        (b"{i\x01aSi\x02hi}", {"a": "hi"}),
        (b"L\x00\x00\x00\x00\x00\x00\x00\x05", 5),
    ],
)
def test_ubjson_is_read(document: bytes, value: Any) -> None:
    assert ubjson.loads(document) == value


def test_numbers_of_one_type_are_an_array() -> None:
    assert ubjson.loads(b"[$d#i\x01\x3f\x80\x00\x00").tolist() == [1.0]


@pytest.mark.parametrize(
    "document", [b"", b"[", b"{i\x05ab", b"Si\x09short", b"[$d#i\x02\x00", b"?", b"SSi\x01a", b"Si\xff"]
)
def test_what_is_no_ubjson_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"breaks off|marker|whole number"):
        ubjson.loads(document)


def test_the_service_needs_no_training_library(tmp_path: Path) -> None:
    """As in the image `serving`: there, none of them is installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(TRAINING | {'scipy', 'joblib'})!r}))\n"
        "import pipeline.cli.commands, serve_app.deployment.run, serve_app.app\n"
        "from registry.artifact import load_artifact; from serve_app.model.predictor import Predictor; from "
        "transforms.listings.example import EXAMPLE\n"
        "from pathlib import Path; print(sorted(Predictor(load_artifact(Path(sys.argv[1]))).explain(EXAMPLE)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(boosted_artifact(tmp_path / "model"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "contributions" in done.stdout, done.stderr
