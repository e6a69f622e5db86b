"""A model of one matrix product, in a folder as training writes it: enough for whatever handles models."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from registry.artifact import write_artifact
from transforms.encode import Matrix
from transforms.listings import CONTRACT, ROOM_TYPES

FEATURES = CONTRACT.features

NAME = "listing-price"
FIRST = "20260101T000000Z-aaaaaa"
SECOND = "20260202T000000Z-bbbbbb"
THIRD = "20260303T000000Z-cccccc"

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
    weights = np.random.default_rng(seed).normal(0, 0.1, (len(FEATURES), 4)).astype(np.float32)
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
        "contract": CONTRACT.ref,
        "label": CONTRACT.label.as_json(),
        "features": list(FEATURES),
        "vocabulary": VOCABULARY,
        "metrics": {"accuracy": 0.7, "log_loss": 0.75},
        "dataset": {"uri": "data", "version": FIRST, "rows": 100},
    }


def golden_rows() -> Matrix:
    rows = np.random.default_rng(1).uniform(0, 5, (5, len(FEATURES))).astype(np.float32)
    rows[1:, 4:7] = np.nan
    return rows


def tiny_probabilities(matrix: Matrix, weights: Matrix) -> Matrix:
    scores = np.exp(np.nan_to_num(matrix, nan=0) @ weights)
    shares: Matrix = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def tiny_onnx(weights: Matrix) -> bytes:
    """softmax(x · weights), with missing values as 0."""
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, weights.shape[0]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, weights.shape[1]])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
