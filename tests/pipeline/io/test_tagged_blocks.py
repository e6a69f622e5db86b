"""Tagged blocks, and the counts that reconcile a run."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.io import kmv_sketch
from pipeline.io.kmv_sketch import KmvSketch, task_size
from pipeline.io.tagged_blocks import WriteStats, stats_of, tag, untag
from tests.support.raw_listings import listing, table_of
from transforms.clean import clean
from transforms.listings import CONTRACT


def cleaned(*rows: dict[str, str | None]) -> tuple[pa.Table, pa.Table, pa.Array]:
    result = clean(table_of(rows), CONTRACT, CONTRACT.label)
    return result.accepted, result.rejected, result.warnings


def block_stats(*rows: dict[str, str | None]) -> WriteStats:
    return stats_of(*untag(tag(*cleaned(*rows))), key="id")


@pytest.mark.parametrize("prices", [["$50", "x", "$60"], ["$50", "$60"], ["x", "y"], []])
def test_what_is_tagged_is_untagged_again(prices: list[str]) -> None:
    accepted, rejected, warnings = cleaned(*(listing(number, price=price) for number, price in enumerate(prices)))

    back = untag(tag(accepted, rejected, warnings))

    assert back[0].equals(accepted)
    assert back[1].to_pylist() == rejected.to_pylist()
    assert back[2].to_pylist() == warnings.to_pylist()


def test_stats_add_up() -> None:
    one = block_stats(listing(1), listing(2, price="x"))
    two = block_stats(listing(1, bathrooms_text="some"), listing(3, price="x", latitude="91"))

    total = one + two

    assert (total.read, total.accepted, total.rejected) == (4, 2, 2)
    assert total.reasons == {"price:unparseable": 2, "latitude:out_of_range": 1}
    assert total.warnings == {"bathrooms:unparseable": 1}
    assert total.repeated_keys == 1


def test_repeated_keys_are_counted_exactly_while_they_fit_and_estimated_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(1, 20_001, dtype=np.int64)
    repeated = np.concatenate([ids, ids[:5_000]])
    halves = repeated[::2], repeated[1::2]

    exact = KmvSketch.of(halves[0]) + KmvSketch.of(halves[1])
    monkeypatch.setattr(kmv_sketch, "SKETCH_SIZE", 4_000)
    estimated = KmvSketch.of(halves[0]) + KmvSketch.of(halves[1])

    assert exact.repeats(25_000) == 5_000
    assert len(estimated.hashes) == 4_000
    assert abs(estimated.repeats(25_000) - 5_000) < 500


def test_sketches_of_many_tasks_stay_small_together_and_still_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmv_sketch, "SKETCH_SIZE", 8_000)
    repeated = np.random.default_rng(1).permutation(np.repeat(np.arange(1, 100_001, dtype=np.int64), 2))

    sketches = [KmvSketch.of(part).shrunk(task_size(task)) for task, part in enumerate(np.array_split(repeated, 50))]
    total = sum(sketches, KmvSketch())

    assert sum(len(sketch.hashes) for sketch in sketches) < 40_000
    assert abs(total.repeats(200_000) - 100_000) < 5_000


def test_empty_stats_change_nothing() -> None:
    stats = block_stats(listing(1))

    assert (stats + WriteStats()).keys.repeats(1) == 0
    assert (WriteStats() + stats).accepted == 1
