"""The default estimator: gradient boosted trees, every worker streaming its share of the rows into XGBoost."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train
import xgboost
from ray.train.xgboost import XGBoostTrainer

from nightprice.signals import held
from pipeline import progress
from pipeline.settings import Settings
from pipeline.train.encoded_rows import check_rows, read_batches
from pipeline.train.estimator import Estimator, Trained, TrainingRun, run_workers, threads
from pipeline.train.onnx_export import to_onnx
from pipeline.train.spool import Spool
from pipeline.train.statistics import TrainingError
from pipeline.train.watchdog import with_heartbeats
from registry.trees import TREES, TreeArrays
from transforms.contract import Contract
from transforms.encode import Matrix

# Metrics reach Ray Train's dashboard every so many rounds: each report is a barrier between the workers.
_REPORT_ROUNDS = 25


class XGBoost(Estimator):
    """XGBoost's multi-class trees on all features, with early stopping on a slice of the training rows."""

    def validation_share(self, settings: Settings) -> float:
        return settings.xgboost.validation_share

    def fit(self, run: TrainingRun) -> Trained:
        config = {
            "parameters": parameters(run.settings, len(run.labels)),
            "rounds": run.settings.xgboost.rounds,
            "patience": run.settings.xgboost.early_stopping_rounds,
            "max_bin": run.settings.xgboost.max_bin,
            "threads": run.threads,
            "weights": class_weights(run.counts, run.settings.xgboost.class_balance),
            "rows": sum(run.counts),
            "features": len(run.contract.features),
            "heartbeats": run.watchdog.heartbeats,
        }
        # All workers boost the same trees.
        model = run_workers(run, train_worker, config, split_rows=True, trainer=XGBoostTrainer)[0]
        booster = xgboost.Booster(model_file=bytearray(model))
        return trained(booster, run.sample, len(run.labels), run.contract)


def parameters(settings: Settings, categories: int) -> dict[str, Any]:
    """XGBoost's parameters, in its own names."""
    chosen = settings.xgboost
    return {
        "objective": "multi:softprob",
        "eval_metric": "mlogloss",
        "num_class": categories,
        "tree_method": "hist",
        "seed": settings.seed,
        "max_bin": chosen.max_bin,
        "learning_rate": chosen.learning_rate,
        "max_depth": chosen.max_depth,
        "min_child_weight": chosen.min_child_weight,
        "subsample": chosen.subsample,
        "colsample_bytree": chosen.colsample_bytree,
        "reg_lambda": chosen.reg_lambda,
        "reg_alpha": chosen.reg_alpha,
        # Our own choice of what missing is, and the same start on every worker.
        "base_score": 0.5,
    }


def class_weights(counts: list[int], balance: float) -> list[float]:
    """A weight for the rows of each category: 1 for `balance` 0, inverse to its frequency for 1.

    >>> class_weights([300, 100], 1.0)
    [0.6666666666666666, 2.0]
    """
    mean = sum(counts) / len(counts)
    return [(mean / max(count, 1)) ** balance for count in counts]


def train_worker(config: dict[str, Any]) -> bytearray:
    """What every Ray Train worker runs: spool its shard, boost together, return the booster, in XGBoost's format."""
    training, validation = Spool(config["features"]), Spool(config["features"])
    progress.begin("reading the training rows", rows=config["rows"])
    for batch in with_heartbeats(read_batches(ray.train.get_dataset_shard("train")), config["heartbeats"]):
        training.append(batch.features[~batch.validation], batch.labels[~batch.validation])
        validation.append(batch.features[batch.validation], batch.labels[batch.validation])
        progress.advance(rows=len(batch.keys))
    check_rows(_total(training.rows + validation.rows), config["rows"])
    if not _total(validation.rows):
        raise TrainingError(
            "None of the training rows became a validation row. Raise xgboost.validation_share, or bring more rows."
        )
    options = {
        "weights": np.array(config["weights"], np.float32),
        "max_bin": config["max_bin"],
        "nthread": threads(config["threads"]),
    }
    progress.begin("binning")
    # XGBoost takes what Python raises for a signal in an iterator for the end of its rows.
    with held(signal.SIGINT, signal.SIGTERM):
        matrix = quantile_matrix(training, **options)
        held_out = quantile_matrix(validation, **options, ref=matrix)
    progress.begin("boosting", rounds=config["rounds"])
    booster = xgboost.train(
        {**config["parameters"], "nthread": options["nthread"]},
        matrix,
        num_boost_round=config["rounds"],
        evals=[(held_out, "validation")],
        callbacks=[xgboost.callback.EarlyStopping(rounds=config["patience"], save_best=True), _Report()],
        verbose_eval=False,
    )
    return booster.save_raw()


def _total(rows: int) -> int:
    """The rows of all workers."""
    return int(xgboost.collective.allreduce(np.array([rows]), xgboost.collective.Op.SUM)[0])


class _Report(xgboost.callback.TrainingCallback):
    """Shows the validation loss, and reports it to Ray Train every few rounds."""

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: Any) -> bool:
        loss = evals_log["validation"]["mlogloss"][-1]
        progress.advance(f"validation log loss {loss:.4f}", rounds=1)
        if epoch % _REPORT_ROUNDS == 0:
            ray.train.report({"round": epoch, "validation_loss": loss})
        return False


def quantile_matrix(spool: Spool, weights: npt.NDArray[np.float32], **options: Any) -> xgboost.QuantileDMatrix:
    """The rows of a spool as XGBoost's histogram bins: one or two bytes a value; NaN is missing.

    `weights` holds one weight for each category. A matrix to evaluate on takes the bins of another, its `ref`.
    """
    return xgboost.QuantileDMatrix(_SpoolIterator(spool, weights), missing=np.nan, **options)


class _SpoolIterator(xgboost.DataIter):
    """Feeds a spool to XGBoost, a batch at a time."""

    def __init__(self, spool: Spool, weights: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._spool, self._weights = spool, weights
        self.reset()

    def next(self, input_data: Callable[..., Any]) -> bool:
        batch = next(self._batches, None)
        if batch is None:
            return False
        features, labels = batch
        input_data(data=features, label=labels.astype(np.float32), weight=self._weights[labels])
        return True

    def reset(self) -> None:
        self._batches: Iterator[Any] = self._spool.batches()


def trained(booster: xgboost.Booster, sample: Matrix, categories: int, contract: Contract) -> Trained:
    """The booster as ONNX, with what it predicts for the rows of `sample`, its trees and its importances."""
    expected = booster.inplace_predict(sample, missing=np.nan)
    gain = booster.get_score(importance_type="total_gain")
    gains = np.array([gain.get(f"f{position}", 0.0) for position in range(len(contract.features))])
    trees = tree_arrays(booster, categories)
    return Trained(
        onnx=booster_to_onnx(trees, len(contract.features)),
        expected=np.asarray(expected, np.float64).reshape(len(sample), categories),
        importance={
            name: float(share) for name, share in zip(contract.features, gains / max(gains.sum(), 1e-12), strict=True)
        },
        files={TREES: trees.to_bytes()},
        facts={"rounds": booster.num_boosted_rounds()},
    )


def tree_arrays(booster: xgboost.Booster, categories: int) -> TreeArrays:
    """The trees of a multi:softprob booster, from XGBoost's documented JSON model."""
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"]["model"]
    start = np.array(learner["learner_model_param"]["base_score"].strip("[]").split(","), np.float64)
    trees = model["trees"]

    def nodes(name: str) -> npt.NDArray[Any]:
        return np.concatenate([tree[name] for tree in trees])

    left, conditions = nodes("left_children"), nodes("split_conditions")
    number = np.repeat(np.arange(len(trees)), [len(tree["left_children"]) for tree in trees])
    leaf = np.flatnonzero(left < 0)
    return TreeArrays(
        tree=number,
        feature=nodes("split_indices"),
        threshold=conditions,
        left=left,
        right=nodes("right_children"),
        missing_left=nodes("default_left"),
        leaf=leaf,
        category=np.array(model["tree_info"])[number[leaf]],
        # A leaf's condition is its weight.
        weight=conditions[leaf],
        cover=nodes("sum_hessian"),
        base=np.broadcast_to(start, categories),
    )


def booster_to_onnx(trees: TreeArrays, features: int) -> bytes:
    """The trees of a multi:softprob booster as one ONNX operator."""
    return to_onnx(trees, features=features, mode="BRANCH_LT", categories=len(trees.base), post_transform="SOFTMAX")
