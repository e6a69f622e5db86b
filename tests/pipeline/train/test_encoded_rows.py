"""Rows on their way to the workers: whatever their number, all arrive."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray.data

from pipeline.split import Split
from pipeline.train.encoded_rows import check_rows, encoded_rows, padded, read_batches
from pipeline.train.statistics import TrainingError, statistics_of
from pipeline.train.train import training_columns
from tests.support.accepted_listings import accepted_listings
from transforms.encode import Encoder
from transforms.listings import CONTRACT

LABELS = CONTRACT.label.labels


def ids_of(shard: Any) -> list[int]:
    return [int(number) for batch in read_batches(shard) for number in batch.keys]


@pytest.mark.usefixtures("ray_session")
def test_equal_shares_lose_no_row() -> None:
    table, nothing_held = accepted_listings(101).select(list(training_columns(CONTRACT))), Split(0.0)
    statistics = statistics_of(table, nothing_held, CONTRACT)
    encoder = Encoder(CONTRACT, statistics.vocabulary(CONTRACT, LABELS))
    rows = encoded_rows(ray.data.from_arrow(table), nothing_held, encoder, LABELS, 0.1)
    shares = padded(rows, 101, len(CONTRACT.features), workers=3).streaming_split(3, equal=True)
    with ThreadPoolExecutor(3) as threads:
        found = [number for ids in threads.map(ids_of, shares) for number in ids]
    assert sorted(found) == sorted(table["id"].to_pylist())


def test_rows_that_did_not_arrive_are_noticed() -> None:
    with pytest.raises(TrainingError, match="100 of 101 training rows reached the workers"):
        check_rows(100, 101)
