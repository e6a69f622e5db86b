"""What every field contributed to a prediction: TreeSHAP, from the trees themselves."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nightprice.errors import first_line
from registry import format1
from registry.artifact import MODEL, Artifact
from registry.errors import ArtifactError
from registry.trees import TREES, TreeArrays
from serve_app.errors import RequestError
from serve_app.model.shap import TreeShap
from transforms.encode import Matrix

# Ours is a sum of many more parts than that of ONNX Runtime.
TOLERANCE = 1e-4


class Explainer:
    """The trees of a model, for their contributions."""

    def __init__(self, artifact: Artifact, trees: bytes) -> None:
        """`trees` is the content of `trees.npz`. Raises ArtifactError if they are not the trees of the artifact."""
        self._features, self._labels = artifact.features, artifact.labels
        try:
            self._shap = TreeShap(TreeArrays.from_bytes(trees), len(self._labels), len(self._features))
        except (IndexError, ValueError) as error:
            raise ArtifactError(
                f"{artifact.folder}: {TREES} can't be used: {first_line(error)}. Train the model again."
            ) from error
        self._test(artifact)

    def contributions(self, matrix: Matrix) -> npt.NDArray[np.float32]:
        """The share of every feature in the log-odds of every row and label, the base last.

        float32 [n, labels, features + 1].
        """
        rows = [np.column_stack([self._shap.contributions(vector), self._shap.base]) for vector in matrix]
        return np.array(rows, np.float32).reshape(len(matrix), len(self._labels), len(self._features) + 1)

    def explain(self, vector: Matrix) -> dict[str, Any]:
        """The contributions of one feature vector, by label and feature."""
        (shares,) = self.contributions(vector[np.newaxis])
        return {
            "unit": "log-odds",
            "base": dict(zip(self._labels, shares[:, -1].tolist(), strict=True)),
            "contributions": {
                label: dict(zip(self._features, shares[position, :-1].tolist(), strict=True))
                for position, label in enumerate(self._labels)
            },
        }

    def _test(self, artifact: Artifact) -> None:
        """The contributions of a golden row must add up to its log-odds."""
        scores = self.contributions(artifact.golden.features[:1]).sum(axis=2)
        odds = np.exp(scores - scores.max())
        if not (np.abs(odds / odds.sum() - artifact.golden.probabilities[:1]) <= TOLERANCE).all():
            raise ArtifactError(f"{artifact.folder}: {TREES} and {MODEL} are different models. Train the model again.")


def load_explainer(artifact: Artifact) -> Explainer | None:
    """The explainer of a model, None if its estimator has no contributions. Raises ArtifactError as `Explainer`."""
    trees = artifact.file(TREES)
    return None if trees is None else Explainer(artifact, trees)


def no_explanation(artifact: Artifact) -> RequestError:
    """The answer for a model whose contributions are not known."""
    if format1.has_unread_trees(artifact.manifest):
        reason = f"{artifact.ref} was trained in format 1, whose trees are not read any more. Train it again."
    else:
        reason = (
            f"{artifact.ref} is a {artifact.manifest['estimator']} without contributions: only models of XGBoost "
            "explain themselves."
        )
    return RequestError(501, "no_explanation", reason)
