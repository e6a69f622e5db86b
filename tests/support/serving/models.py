"""What the tests of the service stand on: small models, listings as a caller sends them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost

from pipeline.train.boosting import booster_to_onnx, tree_arrays
from registry.artifact import Artifact, load_artifact, write_artifact
from registry.registry import Registry
from registry.trees import TREES
from tests.support.accepted_listings import BOROUGHS, TYPES, accepted_listings
from tests.support.tiny_model import FIRST, NAME, tiny_artifact, tiny_manifest
from transforms.encode import Encoder
from transforms.listings import CONTRACT, ROOM_TYPES

VOCABULARY = {
    "neighbourhood": {name: i + 1 for i, name in enumerate(BOROUGHS)},
    "property_type": {name: i + 1 for i, name in enumerate(TYPES)},
    "room_type": {name: i + 1 for i, name in enumerate(ROOM_TYPES)},
}


def boosted_artifact(folder: Path, version: str = FIRST, seed: int = 0, rounds: int = 20) -> Path:
    """Write a small model of XGBoost, as training does, and return its folder."""
    onnx, trees, golden, expected = _boosted(seed, rounds)
    manifest = {**tiny_manifest(version), "vocabulary": VOCABULARY}
    write_artifact(
        folder,
        manifest=manifest,
        onnx=onnx,
        golden_features=golden,
        golden_probabilities=expected,
        files={TREES: trees},
    )
    return folder


@cache
def _boosted(seed: int, rounds: int) -> tuple[bytes, bytes, Any, Any]:
    table = accepted_listings(2_000, seed)
    features = Encoder(CONTRACT, VOCABULARY).table(table)
    labels = np.array([CONTRACT.label.labels.index(label) for label in table[CONTRACT.label_name].to_pylist()])
    parameters = {
        "objective": "multi:softprob",
        "num_class": 4,
        "max_depth": 5,
        "nthread": 1,
        "base_score": 0.5,
        "seed": seed,
    }
    booster = xgboost.train(parameters, xgboost.DMatrix(features, labels), rounds)
    golden = features[:20]
    trees = tree_arrays(booster, 4)
    onnx = booster_to_onnx(trees, features.shape[1])
    return onnx, trees.to_bytes(), golden, booster.inplace_predict(golden)


def boosted_model(folder: Path, **options: Any) -> Artifact:
    return load_artifact(boosted_artifact(folder / "model", **options))


def as_listings(table: pa.Table) -> list[dict[str, Any]]:
    """Accepted rows as callers send them: without price, nulls left out in every other row."""
    rows = table.drop_columns([CONTRACT.target, CONTRACT.label_name]).to_pylist()
    return [{name: value for name, value in row.items() if value is not None or i % 2} for i, row in enumerate(rows)]


def registry_with(folder: Path, versions: Sequence[str], boosted: bool = False, uri: str | None = None) -> Registry:
    """A registry with these versions, at an address or in a folder; the first is the champion."""
    registry = Registry(uri or str(folder / "registry"), folder / "cache")
    for seed, version in enumerate(versions):
        make = boosted_artifact if boosted else tiny_artifact
        registry.publish(make(folder / version, version=version, seed=seed), NAME)
    registry.promote(NAME, versions[0], "champion", "test")
    return registry
