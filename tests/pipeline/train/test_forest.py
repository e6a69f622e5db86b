"""The notebook's forest: scikit-learn's own, tree by tree, whoever grows it."""

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.class_weight import compute_sample_weight

from pipeline.settings import ForestSettings
from pipeline.train.encoded_rows import label_positions
from pipeline.train.forest import baseline_columns, float32_below, grow, grow_tree, merged, tree_seeds
from pipeline.train.onnx_export import check_parity, with_missing
from tests.support.accepted_listings import accepted_listings
from transforms.encode import Encoder, Matrix
from transforms.listings import CONTRACT

TREES = 9
ROOMS = {"Shared room": 1, "Private room": 2, "Entire home/apt": 3, "Hotel room": 4}
COLUMNS = baseline_columns(CONTRACT)


@pytest.fixture(scope="module")
def rows() -> tuple[Matrix, Any]:
    table = accepted_listings(1_500)
    boroughs = {name: i for i, name in enumerate(table["neighbourhood"].unique().to_pylist())}
    encoder = Encoder(CONTRACT, {"neighbourhood": boroughs, "property_type": {}, "room_type": ROOMS})
    return encoder.table(table), label_positions(table[CONTRACT.label_name], CONTRACT.label.labels)


def grown(rows: tuple[Matrix, Any], workers: int, sample: Matrix, **settings: Any) -> Any:
    """The forest of so many workers, without Ray."""
    seeds = tree_seeds(0, TREES)
    config = {
        "columns": COLUMNS,
        "forest": ForestSettings(**settings).model_dump(),
        "categories": 4,
        "sample": sample,
        "threads": 2,
    }
    parts = [
        grow(
            rows[0][:, COLUMNS], rows[1], {number: int(seeds[number]) for number in range(rank, TREES, workers)}, config
        )
        for rank in range(workers)
    ]
    return merged(parts, 4, CONTRACT)


def test_it_is_the_forest_of_scikit_learn(rows: tuple[Matrix, Any]) -> None:
    sample = with_missing(rows[0][:200])
    theirs = RandomForestClassifier(TREES, random_state=0).fit(rows[0][:, COLUMNS], rows[1])
    ours = grown(rows, 1, sample, class_weight="none")
    np.testing.assert_allclose(ours.expected, theirs.predict_proba(sample[:, COLUMNS]), atol=1e-12)
    np.testing.assert_allclose(
        [ours.importance[name] for name in CONTRACT.baseline], theirs.feature_importances_, atol=1e-12
    )


def test_rows_are_drawn_evenly_and_weighed_then(rows: tuple[Matrix, Any]) -> None:
    # Given the one class weight for which scikit-learn still draws rows as in the notebook's days
    features, labels, seed = rows[0][:, COLUMNS], rows[1], int(tree_seeds(0, 1)[0])
    theirs = RandomForestClassifier(1, random_state=0, class_weight="balanced_subsample").fit(features, labels)
    picked = np.random.RandomState(seed).randint(0, len(labels), len(labels), dtype=np.int32)
    # Then a tree of ours with the same weights is the same tree
    ours = grow_tree(
        features, labels, compute_sample_weight("balanced", labels, indices=picked), seed, ForestSettings()
    )
    np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-12)


def test_balanced_weighs_rare_categories_up(rows: tuple[Matrix, Any]) -> None:
    sample = rows[0][:300]
    rare = int(np.bincount(rows[1]).argmin())
    balanced, even = (
        grown(rows, 1, sample, class_weight=weight, max_depth=3).expected for weight in ("balanced", "none")
    )
    assert balanced[:, rare].mean() > even[:, rare].mean() + 0.05


def test_workers_divide_the_trees_and_change_nothing(rows: tuple[Matrix, Any]) -> None:
    sample = with_missing(rows[0][:50])
    forests = [grown(rows, workers, sample) for workers in (1, 2, 4)]
    assert forests[0].onnx == forests[1].onnx == forests[2].onnx


def test_the_onnx_model_takes_all_features_and_looks_at_its_own(rows: tuple[Matrix, Any]) -> None:
    sample = with_missing(rows[0])
    forest = grown(rows, 2, sample)
    probabilities = check_parity(forest.onnx, sample, forest.expected, tolerance=2e-6)
    others = [position for position in range(len(CONTRACT.features)) if position not in COLUMNS]
    changed = sample.copy()
    changed[:, others] = 7
    assert (check_parity(forest.onnx, changed, forest.expected) == probabilities).all()


def test_a_threshold_between_two_float32_is_rounded_down() -> None:
    # Given thresholds on, just below and just above float32 values
    values = np.array([1.1, 40.71383, -73.9658, 0.0, 1e-30], np.float32)
    thresholds = np.concatenate([values.astype(np.float64) + step for step in (0, -1e-12, 1e-12)])
    probes = np.concatenate([values, np.nextafter(values, np.float32(9e9)), np.nextafter(values, np.float32(-9e9))])
    # Then every float32 value goes the same way in both precisions
    assert ((probes[:, None] <= float32_below(thresholds)) == (probes[:, None].astype(np.float64) <= thresholds)).all()
