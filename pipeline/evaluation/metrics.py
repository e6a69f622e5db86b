"""Counts of scored rows that add up, and the metrics that follow from them.

Every block of rows becomes one `Counts`; their sum is all that a metric needs, so that no evaluation ever holds all
rows in one place.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.notes import evaluation_notes
from registry.manifest import CalibrationBin, ClassReport, Evaluation, Majority, SegmentAccuracy
from transforms.contract import Label

Numbers = npt.NDArray[Any]

# A score's bin is its log-odds in steps of 1/152, over the whole range that float32 probabilities have: fine where
# trees put their scores, near 0 and 1. From scikit-learn's exact ROC AUC the difference stays below 1e-4.
SCORE_BINS = 16_384
_LOWEST_LOG_ODDS, _HIGHEST_LOG_ODDS = -90.0, 18.0
CALIBRATION_BINS = 10
# Probabilities are float32: log loss clips them where scikit-learn does.
_LEAST = float(np.finfo(np.float32).eps)


@dataclass
class Counts:
    """What is kept of scored rows; counts of parts of the rows add up with `+`."""

    confusion: Numbers
    """int64 [k, k]: true × predicted category."""
    scores: Numbers
    """int64 [k, 2, SCORE_BINS]: per category the histogram of its scores among the other rows [0] and its own [1]."""
    calibration: Numbers
    """float64 [CALIBRATION_BINS, 3]: rows, sum of the winning probability, rows predicted right."""
    loss: float
    """Sum of the negative log of the true category's probability."""
    segments: dict[str, dict[str, Numbers]]
    """By field and value: rows, rows predicted right."""
    unscorable: Counter[str] = field(default_factory=Counter)
    """Rows that the model can't score, by reason; they are in no other count."""

    @classmethod
    def none(cls, categories: int) -> "Counts":
        """The counts of no rows."""
        confusion = np.zeros((categories, categories), np.int64)
        scores = np.zeros((categories, 2, SCORE_BINS), np.int64)
        return cls(confusion, scores, np.zeros((CALIBRATION_BINS, 3)), 0.0, {})

    @classmethod
    def of(cls, probabilities: Numbers, truth: Numbers, segments: Mapping[str, Sequence[str]]) -> "Counts":
        """Count scored rows.

        `probabilities` is float [n, k], `truth` int [n] the position of the true category, `segments` holds for each
        field to break down by the rows' values.
        """
        rows, categories = probabilities.shape
        counts = cls.none(categories)
        if not rows:
            return counts
        predicted = probabilities.argmax(axis=1)
        right = predicted == truth
        np.add.at(counts.confusion, (truth, predicted), 1)
        bins = score_bins(probabilities)
        for category in range(categories):
            np.add.at(counts.scores[category], ((truth == category).astype(np.intp), bins[:, category]), 1)
        confidence = probabilities.max(axis=1).astype(np.float64)
        counts.calibration = _calibration(confidence, right)
        own = probabilities[np.arange(rows), truth].astype(np.float64)
        counts.loss = float(-np.log(np.clip(own, _LEAST, 1)).sum())
        counts.segments = {name: _segment(np.asarray(values, np.str_), right) for name, values in segments.items()}
        return counts

    @property
    def rows(self) -> int:
        return int(self.confusion.sum())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.confusion + other.confusion,
            self.scores + other.scores,
            self.calibration + other.calibration,
            self.loss + other.loss,
            {
                name: _summed(self.segments.get(name, {}), other.segments.get(name, {}))
                for name in self.segments | other.segments
            },
            self.unscorable + other.unscorable,
        )

    def to_bytes(self) -> bytes:
        """Compact, for the way from a worker to the driver: most histogram bins are zero."""
        arrays: dict[str, Any] = {
            "confusion": self.confusion,
            "scores": self.scores,
            "calibration": self.calibration,
            "loss": self.loss,
        }
        for name, segment in self.segments.items():
            arrays[f"segment/{name}"] = np.array(list(segment), np.str_)
            arrays[f"right/{name}"] = np.array(list(segment.values())).reshape(-1, 2)
        arrays["reasons"] = np.array(list(self.unscorable), np.str_)
        arrays["unscorable"] = np.array(list(self.unscorable.values()), np.int64)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Counts":
        """Read what `to_bytes` wrote."""
        arrays = np.load(io.BytesIO(data), allow_pickle=False)
        names = [name.removeprefix("segment/") for name in arrays.files if name.startswith("segment/")]
        segments = {
            name: dict(zip(arrays[f"segment/{name}"].tolist(), arrays[f"right/{name}"], strict=True)) for name in names
        }
        unscorable = Counter(dict(zip(arrays["reasons"].tolist(), arrays["unscorable"].tolist(), strict=True)))
        return cls(
            arrays["confusion"], arrays["scores"], arrays["calibration"], float(arrays["loss"]), segments, unscorable
        )


def score_bins(probabilities: Numbers) -> npt.NDArray[np.intp]:
    """The bin of each probability, ascending with it."""
    clipped = np.clip(probabilities.astype(np.float64), 1e-39, 1 - 1e-8)
    log_odds = np.log(clipped) - np.log1p(-clipped)
    share = (log_odds - _LOWEST_LOG_ODDS) / (_HIGHEST_LOG_ODDS - _LOWEST_LOG_ODDS)
    return np.clip(share * SCORE_BINS, 0, SCORE_BINS - 1).astype(np.intp)


def _calibration(confidence: Numbers, right: Numbers) -> Numbers:
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    columns = (None, confidence, right.astype(np.float64))
    return np.stack([np.bincount(bins, column, CALIBRATION_BINS) for column in columns], axis=1).astype(np.float64)


def _segment(values: Numbers, right: Numbers) -> dict[str, Numbers]:
    names, positions = np.unique(values, return_inverse=True)
    rows = np.bincount(positions, minlength=len(names))
    hits = np.bincount(positions, right, minlength=len(names)).astype(np.int64)
    return {str(name): np.array(pair) for name, pair in zip(names, np.stack([rows, hits], axis=1), strict=True)}


def _summed(one: Mapping[str, Numbers], other: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {
        name: one.get(name, np.zeros(2, np.int64)) + other.get(name, np.zeros(2, np.int64)) for name in {**one, **other}
    }


def summary(counts: Counts, label: Label) -> Evaluation:
    """The evaluation that the counts amount to."""
    labels = label.labels
    per_class = class_report(counts.confusion)
    support = counts.confusion.sum(axis=1)
    position = int(support.argmax())
    majority: Majority = {
        "label": labels[position],
        "accuracy": float(support[position] / counts.rows),
        "macro_f1": macro_f1(_all_predicted(support, position)),
    }
    return {
        "rows": counts.rows,
        "unscorable": dict(counts.unscorable),
        "labels": list(labels),
        "metrics": metrics(counts, ordered=label.ordered),
        "confusion": counts.confusion.tolist(),
        "per_class": dict(zip(labels, per_class, strict=True)),
        "calibration": calibration(counts.calibration),
        "segments": {name: _accuracies(segment) for name, segment in counts.segments.items()},
        "majority": majority,
        "notes": evaluation_notes(counts.rows, _accuracy(counts), majority),
    }


def metrics(counts: Counts, *, ordered: bool) -> dict[str, float | None]:
    """The flat metrics by their keys; without those that need ordered labels if the labels are not."""
    return {metric.key: metric.compute(counts) for metric in METRICS if ordered or not metric.needs_order}


def class_report(confusion: Numbers) -> list[ClassReport]:
    """Precision, recall, F1 and support of every label; 0 where there is nothing to divide by."""
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "precision": _ratio(hit, chosen),
            "recall": _ratio(hit, actual),
            "f1": _ratio(2 * hit, chosen + actual),
            "support": int(actual),
        }
        for hit, actual, chosen in zip(hits, support, predicted, strict=True)
    ]


def macro_f1(confusion: Numbers) -> float:
    """The mean F1 of the categories that occur, in truth or prediction, as scikit-learn has it."""
    occurs = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    scores = [entry["f1"] for entry, used in zip(class_report(confusion), occurs, strict=True) if used]
    return float(np.mean(scores)) if scores else 0.0


def roc_auc(scores: Numbers) -> float | None:
    """The mean over categories of the area under the one-vs-rest ROC curve, from histograms [k, 2, bins].

    A pair of rows in the same bin counts half. Categories without rows of both kinds are left out.
    """
    areas = []
    for rest, own in scores.astype(np.float64):
        if rest.sum() and own.sum():
            below = np.cumsum(rest) - rest
            areas.append(float((own * (below + rest / 2)).sum() / (own.sum() * rest.sum())))
    return float(np.mean(areas)) if areas else None


def calibration(bins: Numbers) -> list[CalibrationBin]:
    """The reliability curve: for every bin of the winning probability that has rows, how often it was right."""
    return [
        {
            "lower": position / CALIBRATION_BINS,
            "upper": (position + 1) / CALIBRATION_BINS,
            "confidence": float(confidence / rows),
            "accuracy": float(right / rows),
            "rows": int(rows),
        }
        for position, (rows, confidence, right) in enumerate(bins)
        if rows
    ]


def _accuracies(segment: Mapping[str, Numbers]) -> list[SegmentAccuracy]:
    """Largest segment first."""
    ordered = sorted(segment.items(), key=lambda entry: (-entry[1][0], entry[0]))
    return [{"value": value, "rows": int(rows), "accuracy": float(right / rows)} for value, (rows, right) in ordered]


def _all_predicted(support: Numbers, category: int) -> Numbers:
    confusion = np.zeros((len(support), len(support)), np.int64)
    confusion[:, category] = support
    return confusion


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _accuracy(counts: Counts) -> float:
    return float(np.trace(counts.confusion) / counts.rows)


def _mean_distance(counts: Counts) -> float:
    """How many labels lie between truth and prediction, on average."""
    positions = np.arange(len(counts.confusion))
    distance = np.abs(np.subtract.outer(positions, positions))
    return float((counts.confusion * distance).sum() / counts.rows)


def _calibration_error(counts: Counts) -> float:
    size, confidence, right = counts.calibration.T
    return float(np.abs(right - confidence).sum() / size.sum())


@dataclass(frozen=True)
class Metric:
    """One figure of an evaluation: what it is called, and how it follows from the counts."""

    key: str
    title: str
    description: str
    compute: Callable[[Counts], float | None]
    """None where the rows do not allow it."""
    lower_is_better: bool = False
    is_share: bool = False
    """Shown in percent."""
    needs_order: bool = False
    """Defined for ordered labels only."""
    decides: bool = True
    """Whether the gate may go by it."""


# In the order of interest. Everything that computes, shows or compares a metric takes it from here.
METRICS = (
    Metric("accuracy", "accuracy", "share of right answers", _accuracy, is_share=True),
    Metric(
        "macro_f1", "macro-F1", "precision and recall, every label alike", lambda counts: macro_f1(counts.confusion)
    ),
    Metric(
        "roc_auc", "ROC AUC", "ranks one label against the rest; 0.5 is chance", lambda counts: roc_auc(counts.scores)
    ),
    Metric(
        "log_loss",
        "log loss",
        "penalty for misplaced confidence",
        lambda counts: counts.loss / counts.rows,
        lower_is_better=True,
    ),
    Metric(
        "ordinal_mae",
        "ordinal error",
        "mean distance in labels",
        _mean_distance,
        lower_is_better=True,
        needs_order=True,
    ),
    Metric(
        "ece",
        "calibration error",
        "mean gap between probability and outcome",
        _calibration_error,
        lower_is_better=True,
    ),
    Metric(
        "majority_accuracy",
        "accuracy of the majority label",
        "what always giving the most frequent label scores",
        lambda counts: float(counts.confusion.sum(axis=1).max() / counts.rows),
        decides=False,
    ),
)
METRIC = {metric.key: metric for metric in METRICS}
SUMMARY = ("accuracy", "macro_f1", "roc_auc", "log_loss")
"""The few that a list of models shows."""
