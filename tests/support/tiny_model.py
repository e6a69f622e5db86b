"""A model of one small tree for every feature, in a folder as training writes it: enough to handle models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.train.onnx_export import to_onnx
from registry.artifact import write_artifact
from registry.trees import TreeArrays
from transforms.encode import Matrix
from transforms.listings import CONTRACT, ROOM_TYPES

NAME = "listing-price"
FIRST = "20260101T000000Z-aaaaaa"
SECOND = "20260202T000000Z-bbbbbb"
THIRD = "20260303T000000Z-cccccc"

# Train and publish a tiny model, and return its version: `publish(version, seed)`.
Publish = Callable[..., str]

# It tells yes from no; some values of the golden rows are below it.
SPLIT = 0.5

VOCABULARY = {
    "neighbourhood": {"Bronx": 1, "Queens": 2, "Staten Island": 3, "Brooklyn": 4, "Manhattan": 5},
    "property_type": {"Entire rental unit": 1},
    "room_type": {room: i + 1 for i, room in enumerate(ROOM_TYPES)},
}


def tiny_artifact(
    folder: Path,
    version: str = FIRST,
    seed: int = 0,
    golden_shift: float = 0,
    report: str = "report.html",
    **manifest: Any,
) -> Path:
    """Write a model whose weights depend on the seed, and return its folder; `manifest` replaces entries."""
    weights = np.random.default_rng(seed).normal(0, 0.1, (len(CONTRACT.features), 4)).astype(np.float32)
    features = golden_rows()
    whole = {**tiny_manifest(version), **manifest}
    golden = tiny_probabilities(features, weights) + np.float32(golden_shift)
    files = {report: b"<p>report</p>"}
    write_artifact(
        folder,
        manifest=whole,
        onnx=tiny_onnx(weights),
        golden_features=features,
        golden_probabilities=golden,
        files=files,
    )
    return folder


def tiny_manifest(version: str = FIRST) -> dict[str, Any]:
    return {
        "name": NAME,
        "version": version,
        "created": f"{version[:4]}-{version[4:6]}-{version[6:8]}T00:00:00+00:00",
        "estimator": "xgboost",
        "features": list(CONTRACT.features),
        "vocabulary": VOCABULARY,
        "label": CONTRACT.label.as_json(),
        "contract": CONTRACT.ref,
        "metrics": {"accuracy": 0.7, "log_loss": 0.75},
        "importance": {"accommodates": 0.25, "bathrooms": 0.25, "room_type": 0.5},
        "dataset": {"uri": "data", "version": FIRST, "rows": 100},
    }


def golden_rows() -> Matrix:
    rows = np.random.default_rng(1).uniform(0, 5, (5, len(CONTRACT.features))).astype(np.float32)
    rows[1:, 4:7] = np.nan
    return rows


def tiny_probabilities(matrix: Matrix, weights: Matrix) -> Matrix:
    scores = np.exp(np.where(matrix < SPLIT, 1, -1) @ weights)
    shares: Matrix = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def tiny_onnx(weights: Matrix) -> bytes:
    """One tree for every feature, with two leaves: below SPLIT the weights of the feature count, else the negative
    ones, as they do for a missing value.
    """
    features, labels = weights.shape
    root = 3 * np.arange(features)
    leaf = np.repeat(np.concatenate([root + 1, root + 2]), labels)
    trees = TreeArrays(
        tree=np.repeat(np.arange(features), 3),
        feature=np.repeat(np.arange(features), 3),
        threshold=np.full(3 * features, SPLIT),
        left=np.tile([1, -1, -1], features),
        right=np.tile([2, -1, -1], features),
        missing_left=np.zeros(3 * features, bool),
        leaf=leaf,
        category=np.tile(np.arange(labels), 2 * features),
        weight=np.concatenate([weights, -weights]).ravel(),
    )
    return to_onnx(trees, features=features, mode="BRANCH_LT", categories=labels, post_transform="SOFTMAX")
