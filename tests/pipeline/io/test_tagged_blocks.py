"""Parted blocks, and the tallies that reconcile a run."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.io import kmv_sketch as id_sketch
from pipeline.io.kmv_sketch import IdSketch, task_size
from pipeline.io.tagged_blocks import Tally, join, split, tally_of
from tests.support.raw_listings import listing, table_of
from transforms.clean import clean
from transforms.contract import Pricing


def cleaned(*rows: dict[str, str | None]) -> tuple[pa.Table, pa.Table, pa.Array]:
    result = clean(table_of(rows), Pricing())
    return result.accepted, result.rejected, result.warnings


@pytest.mark.parametrize("prices", [["$50", "x", "$60"], ["$50", "$60"], ["x", "y"], []])
def test_what_is_joined_is_split_again(prices: list[str]) -> None:
    accepted, rejected, warnings = cleaned(*(listing(number, price=price) for number, price in enumerate(prices)))

    back = split(join(accepted, rejected, warnings))

    assert back[0].equals(accepted)
    assert back[1].to_pylist() == rejected.to_pylist()
    assert back[2].to_pylist() == warnings.to_pylist()


def test_tallies_add_up() -> None:
    one = tally_of(*split(join(*cleaned(listing(1), listing(2, price="x")))))
    two = tally_of(*split(join(*cleaned(listing(1, bathrooms_text="some"), listing(3, price="x", latitude="91")))))

    total = one + two

    assert (total.read, total.accepted, total.rejected) == (4, 2, 2)
    assert total.reasons == {"price:unparseable": 2, "latitude:out_of_range": 1}
    assert total.warnings == {"bathrooms:unparseable": 1}
    assert total.id_sketch.repeats(total.accepted) == 1


def test_repeated_ids_are_counted_exactly_while_they_fit_and_estimated_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(1, 20_001, dtype=np.int64)
    repeated = np.concatenate([ids, ids[:5_000]])
    halves = repeated[::2], repeated[1::2]

    exact = IdSketch.of(halves[0]) + IdSketch.of(halves[1])
    monkeypatch.setattr(id_sketch, "SKETCH_SIZE", 4_000)
    estimated = IdSketch.of(halves[0]) + IdSketch.of(halves[1])

    assert exact.repeats(25_000) == 5_000
    assert len(estimated.hashes) == 4_000
    assert abs(estimated.repeats(25_000) - 5_000) < 500


def test_sketches_of_many_tasks_stay_small_together_and_still_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_sketch, "SKETCH_SIZE", 8_000)
    repeated = np.random.default_rng(1).permutation(np.repeat(np.arange(1, 100_001, dtype=np.int64), 2))

    sketches = [IdSketch.of(part).shrunk(task_size(task)) for task, part in enumerate(np.array_split(repeated, 50))]
    total = sum(sketches, IdSketch())

    assert sum(len(sketch.hashes) for sketch in sketches) < 40_000
    assert abs(total.repeats(200_000) - 100_000) < 5_000


def test_the_empty_tally_changes_nothing() -> None:
    tally = tally_of(*split(join(*cleaned(listing(1)))))

    assert (tally + Tally()).id_sketch.repeats(1) == 0
    assert (Tally() + tally).accepted == 1
