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
from tests.support.contracts import Example
from tests.support.tiny_model import FIRST, NAME, tiny_artifact, tiny_manifest
from transforms.clean import clean
from transforms.encode import Encoder, learn_vocabulary
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
    return _boost(Encoder(CONTRACT, VOCABULARY), accepted_listings(2_000, seed), seed, rounds)


def _boost(encoder: Encoder, table: pa.Table, seed: int, rounds: int) -> tuple[bytes, bytes, Any, Any]:
    """A model of accepted rows: ONNX, trees, golden features and their probabilities."""
    contract = encoder.contract
    features = encoder.table(table)
    labels = contract.label.labels
    codes = np.array([labels.index(label) for label in table[contract.label_name].to_pylist()])
    parameters = {
        "objective": "multi:softprob",
        "num_class": len(labels),
        "max_depth": 5,
        "nthread": 1,
        "base_score": 0.5,
        "seed": seed,
    }
    booster = xgboost.train(parameters, xgboost.DMatrix(features, codes), rounds)
    golden = features[:20]
    trees = tree_arrays(booster, len(labels))
    onnx = booster_to_onnx(trees, features.shape[1])
    return onnx, trees.to_bytes(), golden, booster.inplace_predict(golden)


def boosted_artifact_of(example: Example, folder: Path) -> Path:
    """The same for another contract, from the raw rows of its example."""
    contract = example.contract
    table = clean(example.table(example.rows(600)), contract, contract.label).accepted
    labels = contract.label.labels
    texts: dict[str, dict[str, list[int]]] = {name: {} for name in contract.coded}
    for row in table.to_pylist():
        for name, counts in texts.items():
            counts.setdefault(row[name], [0] * len(labels))[labels.index(row[contract.label_name])] += 1
    encoder = Encoder(contract, learn_vocabulary(contract, texts))
    onnx, trees, golden, expected = _boost(encoder, table, 0, 10)
    facts = {"name": contract.name, "contract": contract.ref, "label": contract.label.as_json()}
    learned = {"features": list(contract.features), "vocabulary": encoder.vocabulary}
    write_artifact(
        folder,
        manifest={**tiny_manifest(), **facts, **learned},
        onnx=onnx,
        golden_features=golden,
        golden_probabilities=expected,
        files={TREES: trees},
    )
    return folder


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
