"""What every field contributed to a prediction: TreeSHAP, from the trees themselves."""

import json
from typing import Any

import numpy as np

from registry.artifact import Artifact
from registry.errors import ArtifactError
from serve_app.errors import RequestError
from serve_app.model import ubjson
from serve_app.model.shap import Trees
from transforms.contract import FEATURES
from transforms.encode import Matrix

BOOSTER = "booster.ubj"
# Ours is a sum of many more parts than that of ONNX Runtime.
TOLERANCE = 1e-4


class Explainer:
    """The trees of a model, for their contributions."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError if the booster is not the model that scores."""
        self._labels = artifact.labels
        try:
            booster = ubjson.loads((artifact.folder / BOOSTER).read_bytes())
            self._trees = Trees(booster, len(self._labels), len(FEATURES))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{artifact.folder}: {BOOSTER} holds no trees of XGBoost. Train the model again."
            ) from error
        self._test(artifact)

    def contributions(self, matrix: Matrix) -> np.ndarray[Any, np.dtype[np.float32]]:
        """For each row and category the share of every field in its log-odds, the base last: float32 [n, labels,
        18].
        """
        found = [np.column_stack([self._trees.contributions(vector), self._trees.base]) for vector in matrix]
        return np.array(found, np.float32).reshape(len(matrix), len(self._labels), len(FEATURES) + 1)

    def explain(self, vector: Matrix) -> dict[str, Any]:
        """The contributions of one feature vector, by category and field."""
        (found,) = self.contributions(vector[np.newaxis])
        return {
            "unit": "log-odds",
            "base": dict(zip(self._labels, found[:, -1].tolist(), strict=True)),
            "contributions": {
                label: dict(zip(FEATURES, found[position, :-1].tolist(), strict=True))
                for position, label in enumerate(self._labels)
            },
        }

    def _test(self, artifact: Artifact) -> None:
        """The contributions of a golden row must add up to its log-odds."""
        row = np.array(json.loads((artifact.folder / "golden.json").read_bytes())["features"][:1], np.float32)
        scores = self.contributions(row).sum(axis=2)
        shares = np.exp(scores - scores.max())
        if not (np.abs(shares / shares.sum() - artifact.predict(row)) <= TOLERANCE).all():
            raise ArtifactError(
                f"{artifact.folder}: {BOOSTER} is another model than model.onnx. Train the model again."
            )


def load_explainer(artifact: Artifact) -> Explainer | None:
    """The explainer of a model, None if its estimator has no contributions. Raises ArtifactError as `Explainer`."""
    return Explainer(artifact) if BOOSTER in artifact.manifest["sha256"] else None


def no_explanation(artifact: Artifact) -> RequestError:
    """The model has no trees that say what contributed."""
    return RequestError(
        501,
        "no_explanation",
        f"{artifact.ref} is a {artifact.manifest['estimator']} without contributions: only models of XGBoost "
        "explain themselves.",
    )
