"""XGBoost: fed from a spool in pieces, written as ONNX, exact with missing values."""

from typing import Any

import numpy as np
import pytest
import xgboost

from pipeline.settings import Settings, XGBoostSettings
from pipeline.train.boosting import booster_to_onnx, class_weights, parameters, quantile_matrix, trained, tree_arrays
from pipeline.train.onnx_export import ExportError, check_parity, with_missing
from pipeline.train.spool import Spool
from registry.trees import TREES, TreeArrays
from transforms.encode import Matrix
from transforms.listings import CONTRACT

FEATURES = CONTRACT.features
EVEN = np.ones(4, np.float32)


@pytest.fixture(scope="module")
def rows() -> tuple[Matrix, Any]:
    random = np.random.default_rng(0)
    features = with_missing(random.normal(size=(1_000, len(FEATURES))).astype(np.float32))
    score = np.nan_to_num(features[:, 0]) + np.nan_to_num(features[:, 3]) + random.normal(0, 0.3, len(features))
    return features, np.digitize(score, [-1, 0, 1]).astype(np.int8)


def spool(rows: tuple[Matrix, Any], piece: int) -> Spool:
    filled = Spool(len(FEATURES))
    for start in range(0, len(rows[1]), piece):
        filled.append(rows[0][start : start + piece], rows[1][start : start + piece])
    return filled


def boosted(data: xgboost.DMatrix, rounds: int = 20) -> xgboost.Booster:
    return xgboost.train({**parameters(Settings(), 4), "nthread": 1}, data, rounds)


def test_a_spool_gives_the_rows_back_in_order_as_often_as_asked(rows: tuple[Matrix, Any]) -> None:
    filled = spool(rows, 333)
    for size in (100, 700, 5_000):
        features, labels = zip(*filled.batches(size), strict=True)
        np.testing.assert_array_equal(np.concatenate(features), rows[0])
        np.testing.assert_array_equal(np.concatenate(labels), rows[1])


def test_streaming_trains_the_model_that_the_whole_matrix_trains(rows: tuple[Matrix, Any]) -> None:
    streamed = boosted(quantile_matrix(spool(rows, 333), EVEN, max_bin=256, nthread=1))
    whole = boosted(xgboost.QuantileDMatrix(rows[0], rows[1], missing=np.nan, max_bin=256, nthread=1))
    assert streamed.save_raw("json") == whole.save_raw("json")


def test_a_worker_may_have_no_rows_to_validate_on(rows: tuple[Matrix, Any]) -> None:
    matrix = xgboost.QuantileDMatrix(*rows)
    validation = quantile_matrix(Spool(len(FEATURES)), np.ones(4, np.float32), ref=matrix)

    assert validation.num_row() == 0
    xgboost.train(
        {"objective": "multi:softprob", "num_class": 4},
        matrix,
        2,
        evals=[(validation, "validation")],
        verbose_eval=False,
    )


def test_the_onnx_model_is_the_booster_with_missing_values_too(rows: tuple[Matrix, Any]) -> None:
    booster = boosted(xgboost.QuantileDMatrix(*rows), 40)
    sample = with_missing(rows[0], seed=9)
    onnx = booster_to_onnx(tree_arrays(booster, 4), len(FEATURES))
    check_parity(onnx, sample, booster.inplace_predict(sample, missing=np.nan), tolerance=2e-6)


def test_a_model_that_differs_is_refused(rows: tuple[Matrix, Any]) -> None:
    booster = boosted(xgboost.QuantileDMatrix(*rows))
    expected = booster.inplace_predict(rows[0], missing=np.nan)
    expected[17, 2] += 2e-5
    with pytest.raises(ExportError, match="differs from the trained one"):
        check_parity(booster_to_onnx(tree_arrays(booster, 4), len(FEATURES)), rows[0], expected)


def test_no_number_is_no_parity(rows: tuple[Matrix, Any]) -> None:
    booster = boosted(xgboost.QuantileDMatrix(*rows))
    expected = booster.inplace_predict(rows[0], missing=np.nan)
    expected[3] = np.nan
    with pytest.raises(ExportError):
        check_parity(booster_to_onnx(tree_arrays(booster, 4), len(FEATURES)), rows[0], expected)


def test_importances_are_shares_and_name_the_features_that_matter(rows: tuple[Matrix, Any]) -> None:
    model = trained(boosted(xgboost.QuantileDMatrix(*rows)), rows[0], 4, CONTRACT)
    assert sum(model.importance.values()) == pytest.approx(1)
    assert sorted(model.importance, key=lambda name: -model.importance[name])[:2] in (
        [FEATURES[0], FEATURES[3]],
        [FEATURES[3], FEATURES[0]],
    )
    assert model.facts["rounds"] == 20


def test_the_trees_are_in_the_artifact_whole_and_the_same_every_time(rows: tuple[Matrix, Any]) -> None:
    booster = boosted(xgboost.QuantileDMatrix(*rows))
    first, second = (trained(booster, rows[0], 4, CONTRACT).files[TREES] for _ in range(2))
    trees = TreeArrays.from_bytes(first)

    assert first == second
    assert booster_to_onnx(trees, len(FEATURES)) == booster_to_onnx(tree_arrays(booster, 4), len(FEATURES))
    assert (len(trees.roots), len(trees.cover), trees.base.tolist()) == (80, len(trees.tree), [0.5] * 4)


def test_balance_weighs_rare_categories_up() -> None:
    assert class_weights([300, 100], 0) == [1, 1]
    weights = class_weights([300, 100], 0.5)
    assert weights[1] > 1 > weights[0]


def test_every_parameter_of_the_settings_reaches_xgboost() -> None:
    given = parameters(Settings(), 4)
    steering = {"rounds", "early_stopping_rounds", "validation_share", "class_balance"}
    assert set(XGBoostSettings.model_fields) - steering <= set(given)
