"""Metrics from counts: those of scikit-learn on all rows, however the rows are divided."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pipeline.evaluation.metrics import Counts, macro_f1, metrics, roc_auc, score_bins, summary
from transforms.contract import Classes

LABEL = Classes(("Low", "Mid", "High", "Lux"), ordered=True)
BOROUGHS = ("Bronx", "Queens", "Manhattan")
ROWS = 6_000

Scored = tuple[np.ndarray, np.ndarray, dict[str, list[str]]]


def scored(seed: int = 0, rows: int = ROWS, sharpness: float = 3.0) -> Scored:
    """Probabilities float32 [n, 4] that know something of the truth, the truth, and the rows' boroughs."""
    random = np.random.default_rng(seed)
    truth = random.choice(4, rows, p=[0.4, 0.35, 0.2, 0.05])
    log_odds = random.normal(0, sharpness, (rows, 4)) + 3 * np.eye(4)[truth]
    exponentials = np.exp(log_odds)
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities, truth, {"neighbourhood": np.array(BOROUGHS)[random.integers(0, 3, rows)].tolist()}


def part(rows: Scored, chosen: slice) -> Counts:
    probabilities, truth, segments = rows
    return Counts.of(probabilities[chosen], truth[chosen], {name: values[chosen] for name, values in segments.items()})


@pytest.mark.parametrize("sharpness", [0.3, 3.0, 12.0])
def test_metrics_are_those_of_scikit_learn(sharpness: float) -> None:
    rows = scored(sharpness=sharpness)
    probabilities, truth, _ = rows
    predicted = probabilities.argmax(axis=1)
    found = metrics(part(rows, slice(None)), ordered=True)
    exact = probabilities.astype(float) / probabilities.astype(float).sum(axis=1, keepdims=True)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(truth, predicted, average="macro"), abs=1e-12)
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, exact, multi_class="ovr"), abs=1e-4)
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(truth, probabilities), rel=1e-4)
    assert found["ordinal_mae"] == pytest.approx(np.abs(predicted - truth).mean(), abs=1e-12)
    assert found["majority_accuracy"] == pytest.approx(np.bincount(truth).max() / ROWS, abs=1e-12)


def test_roc_auc_counts_ties_half() -> None:
    # A forest of few trees gives few different scores.
    probabilities, truth, _ = scored()
    coarse = (probabilities * 5).round() / 5
    area = np.mean([sklearn_metrics.roc_auc_score(truth == category, coarse[:, category]) for category in range(4)])
    assert roc_auc(Counts.of(coarse, truth, {}).scores) == pytest.approx(area, abs=1e-9)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole() -> None:
    rows = scored()
    sizes = [0, 1, 1000, 1000, 4321, ROWS]
    parts = [Counts.from_bytes(part(rows, slice(low, high)).to_bytes()) for low, high in itertools.pairwise(sizes)]
    total, whole = sum(parts, Counts.none(4)), part(rows, slice(None))
    assert (total.confusion == whole.confusion).all()
    assert (total.scores == whole.scores).all()
    assert total.loss == pytest.approx(whole.loss, rel=1e-12)
    assert summary(total, LABEL)["segments"] == summary(whole, LABEL)["segments"]
    assert summary(total, LABEL)["rows"] == ROWS


def test_unscorable_rows_survive_the_way_and_add_up() -> None:
    one, other = part(scored(), slice(0, 10)), part(scored(), slice(10, 20))
    one.unscorable.update({"neighbourhood:unknown": 2})
    other.unscorable.update({"neighbourhood:unknown": 1, "room_type:unknown": 4})
    total = Counts.from_bytes(one.to_bytes()) + Counts.from_bytes(other.to_bytes())
    assert total.unscorable == {"neighbourhood:unknown": 3, "room_type:unknown": 4}
    assert total.rows == 20


def test_a_report_by_example() -> None:
    # Given four rows, one Mid taken for High with the probability 0.6
    probabilities = np.array([[0.95, 0.05, 0, 0], [0, 0.4, 0.6, 0], [0, 0.8, 0.2, 0], [0, 0, 1, 0]], np.float32)
    counts = Counts.of(
        probabilities, np.array([0, 1, 1, 2]), {"room_type": ["Shared room", "Hotel room", "Hotel room", "Hotel room"]}
    )
    report = summary(counts, LABEL)
    assert report["confusion"] == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert report["per_class"]["Mid"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert report["per_class"]["Lux"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert report["segments"]["room_type"] == [
        {"value": "Hotel room", "rows": 3, "accuracy": pytest.approx(2 / 3)},
        {"value": "Shared room", "rows": 1, "accuracy": 1.0},
    ]
    assert report["majority"] == {"label": "Mid", "accuracy": 0.5, "macro_f1": pytest.approx(2 / 9)}
    # |0.95 - 1|, |0.6 - 0|, |0.8 - 1|, |1 - 1|, a quarter each; the first and the last share a bin.
    assert report["metrics"]["ece"] == pytest.approx((0.05 + 0.6 + 0.2) / 4)
    assert [entry["rows"] for entry in report["calibration"]] == [1, 1, 2]


def test_macro_f1_leaves_out_categories_that_do_not_occur() -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = sklearn_metrics.f1_score([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], average="macro")
        assert macro_f1(confusion) == pytest.approx(expected)


def test_one_category_has_no_roc_auc() -> None:
    probabilities, _, segments = scored()
    counts = Counts.of(probabilities, np.zeros(ROWS, np.int64), segments)
    assert metrics(counts, ordered=True)["roc_auc"] is None
    assert metrics(counts, ordered=True)["accuracy"] is not None


def test_bins_ascend_with_the_score_and_hold_the_extremes() -> None:
    scores = np.array([0, 1e-12, 1e-6, 0.01, 0.5, 0.99, 1 - 1e-6, 1])
    bins = score_bins(scores)
    assert (np.diff(bins) >= 0).all()
    assert len(set(bins.tolist())) >= 6
