"""A model as the release with artifact format 1 wrote it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tiny_model import FIRST, NAME, VOCABULARY, golden_rows, tiny_onnx, tiny_probabilities
from transforms.listings import CONTRACT

WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (len(CONTRACT.features), 4)).astype(np.float32)
LABELS = ["Low", "Mid", "High", "Lux"]


def old_model(folder: Path, **entries: Any) -> Path:
    """Write a model folder and return it; `entries` replaces some of its manifest."""
    golden = golden_rows()
    contents = {
        "model.onnx": tiny_onnx(WEIGHTS),
        "golden.json": json.dumps(
            {
                "features": [[None if np.isnan(value) else float(value) for value in row] for row in golden],
                "probabilities": tiny_probabilities(golden, WEIGHTS).tolist(),
            }
        ).encode(),
        "booster.ubj": b"{}",
    }
    manifest = {
        "name": NAME,
        "version": FIRST,
        "created": "2026-01-01T00:00:00+00:00",
        "estimator": "xgboost",
        "features": list(CONTRACT.features),
        "vocabulary": VOCABULARY,
        "pricing": {"bins": [90.0, 180.0, 400.0], "labels": LABELS, "minimum": 10.0},
        "labels": LABELS,
        "contract_version": 1,
        "metrics": {"accuracy": 0.7},
        "dataset": {"uri": "data", "version": FIRST, "rows": {"accepted": 100}},
        **entries,
        "format": 1,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    manifest["sha256"]["manifest.json"] = digest
    contents["manifest.json"] = json.dumps(manifest, indent=1).encode()
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder
