"""The pass before training: counts that add up, a vocabulary of training rows only, clear refusals."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.split import Split
from pipeline.train.statistics import (
    SAMPLE_ROWS,
    DatasetStatistics,
    TrainingError,
    _from_row,
    _row_of_statistics,
)
from pipeline.train.train import training_columns
from tests.support.accepted_listings import BOROUGHS, accepted_listings
from transforms.listings import CONTRACT

LABELS = CONTRACT.label.labels
SPLIT = Split(0.2)


def learned(table: pa.Table, size: int, split: Split = SPLIT) -> DatasetStatistics:
    """What one pass keeps, batch by batch, without Ray."""
    rows = [
        _row_of_statistics(table.slice(start, size), split, CONTRACT).to_pylist()[0]
        for start in range(0, len(table), size)
    ]
    return sum((_from_row(row, "id") for row in rows), DatasetStatistics("id"))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return accepted_listings(2_000).select(list(training_columns(CONTRACT)))


def test_batches_add_up_to_the_whole(table: pa.Table) -> None:
    whole, parts = learned(table, 2_000), learned(table.take(np.random.default_rng(1).permutation(2_000)), 77)
    assert parts.training == whole.training
    assert parts.holdout == whole.holdout
    assert parts.values == whole.values
    assert parts.sample is not None
    assert whole.sample is not None
    assert parts.sample.equals(whole.sample)
    assert len(parts.sample) == SAMPLE_ROWS


def test_only_training_rows_are_learned_from(table: pa.Table) -> None:
    held = SPLIT.is_holdout(table["id"].to_numpy())
    found = learned(table, 500)
    assert found.rows == int((~held).sum())
    assert found.holdout == int(held.sum())
    assert found.training == Counter(table.filter(pa.array(~held))[CONTRACT.label_name].to_pylist())
    assert found.sample is not None
    assert not SPLIT.is_holdout(found.sample["id"].to_numpy()).any()


def test_neighbourhoods_are_ordered_by_their_mean_category(table: pa.Table) -> None:
    codes = learned(table, 500).vocabulary(CONTRACT, LABELS)["neighbourhood"]
    assert sorted(codes, key=lambda name: codes[name]) == list(BOROUGHS)


def test_rare_property_types_share_a_code(table: pa.Table) -> None:
    codes = learned(table, 500).vocabulary(CONTRACT, LABELS)["property_type"]
    assert set(codes) == {"Room in hotel", "Entire rental unit", "Private room in home", "Castle"}
    found = learned(table, 500).values["property_type"]
    assert sum(found["Castle"].values()) < 20


def test_too_few_rows_are_refused(table: pa.Table) -> None:
    with pytest.raises(TrainingError, match=r"Too few rows: \d+ to train on and \d+ held out"):
        learned(table.slice(0, 60), 60).check(LABELS, SPLIT)
    with pytest.raises(TrainingError, match="Too few rows: 0 to train on"):
        DatasetStatistics("id").check(LABELS, SPLIT)
    learned(table, 500).check(LABELS, SPLIT)


def test_a_single_category_is_refused(table: pa.Table) -> None:
    single = table.set_column(
        table.column_names.index(CONTRACT.label_name), CONTRACT.label_name, pa.array(["High"] * len(table))
    )
    with pytest.raises(TrainingError, match='the one label "High"'):
        learned(single, 500).check(LABELS, SPLIT)


def test_ids_of_another_dataset_are_refused(table: pa.Table) -> None:
    split = Split(0.2, np.array([1, 2, 3]), "other_ids.csv")
    with pytest.raises(TrainingError, match=r'None of the 3 ids in "other_ids.csv" is among the 2,000 rows'):
        learned(table, 500, split).check(LABELS, split)


def test_a_category_that_the_manifest_does_not_name_is_refused(table: pa.Table) -> None:
    with pytest.raises(TrainingError, match="'Lux'"):
        learned(table, 500).check(("Low", "Mid", "High"), SPLIT)
