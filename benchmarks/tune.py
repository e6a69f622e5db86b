"""Compare parameters of the default model by cross-validation on training rows: `python -m benchmarks.tune --help`.

The holdout listings are taken away first: nothing here ever sees them. See docs/decisions/model-parameters.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import xgboost

from pipeline.evaluation.metrics import Counts, metrics
from pipeline.settings import Settings, XGBoostSettings
from pipeline.split import read_split, unit_hash
from pipeline.train.boosting import class_weights, parameters
from pipeline.train.encoded_rows import label_positions
from pipeline.train.statistics import statistics_of
from pipeline.train.train import training_columns
from transforms.encode import Encoder
from transforms.listings import CONTRACT

# A salt of its own: folds have nothing to do with holdout and validation.
_FOLDS = 9
LABELS = CONTRACT.label.labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="a dataset on this machine, as `nightprice process` writes it"
    )
    parser.add_argument("--holdout-ids", help="ids of the holdout (default: by the hash)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of [xgboost] that differs"
    )
    options = parser.parse_args()
    chosen = XGBoostSettings(**dict(pair.split("=", 1) for pair in options.set))
    table = training_rows(options.data, options.holdout_ids)
    for rounds, found in cross_validated(table, Settings(xgboost=chosen), options.folds, options.rounds).items():
        print(json.dumps({"rounds": rounds, **{name: round(value, 4) for name, value in found.items()}}))


def training_rows(data: Path, holdout_ids: str | None) -> pa.Table:
    """The accepted rows of the live version, without the holdout."""
    version = json.loads((data / "manifest.json").read_text())["version"]
    table = (
        pads.dataset(data / "versions" / version / "accepted", format="parquet")
        .to_table(columns=list(training_columns(CONTRACT)))
        .sort_by("id")
    )
    held = read_split(holdout_ids, Settings().holdout_share).is_holdout(table["id"].to_numpy())
    return table.filter(pa.array(~held))


def cross_validated(
    table: pa.Table, settings: Settings, folds: int, rounds: int, step: int = 50
) -> dict[int, dict[str, float]]:
    """The metrics after every `step` rounds, each the mean over the folds. Every fold learns a vocabulary of its
    own.
    """
    fold = (unit_hash(table["id"].to_numpy(), _FOLDS) * folds).astype(int)
    found = [
        _fold(table.filter(pa.array(fold != number)), table.filter(pa.array(fold == number)), settings, rounds)
        for number in range(folds)
    ]
    steps = range(step, rounds + 1, step)
    return {at: {name: float(np.mean([_scores(*one, at)[name] for one in found])) for name in _SHOWN} for at in steps}


_SHOWN = ("accuracy", "macro_f1", "roc_auc", "log_loss")


def _fold(train: pa.Table, test: pa.Table, settings: Settings, rounds: int) -> tuple[xgboost.Booster, Any, Any]:
    nothing_held = read_split(None, 0.0)
    encoder = Encoder(CONTRACT, statistics_of(train, nothing_held, CONTRACT).vocabulary(CONTRACT, LABELS))
    labels = label_positions(train[CONTRACT.label_name], LABELS)
    weights = np.array(class_weights(np.bincount(labels).tolist(), settings.xgboost.class_balance), np.float32)
    matrix = xgboost.QuantileDMatrix(
        encoder.table(train), labels, weight=weights[labels], max_bin=settings.xgboost.max_bin
    )
    booster = xgboost.train(parameters(settings, len(LABELS)), matrix, rounds)
    return booster, encoder.table(test), label_positions(test[CONTRACT.label_name], LABELS)


def _scores(booster: xgboost.Booster, features: Any, labels: Any, rounds: int) -> dict[str, float]:
    probabilities = booster.inplace_predict(features, iteration_range=(0, rounds), missing=np.nan)
    found = metrics(Counts.of(probabilities, labels, {}), ordered=True)
    return {name: value for name, value in found.items() if value is not None}


if __name__ == "__main__":
    main()
