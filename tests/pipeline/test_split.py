"""The split: stable, independent of everything but the id, and told from bad files."""

from pathlib import Path

import numpy as np
import pytest

from nightprice.errors import UsageError
from pipeline.split import HOLDOUT_FILE, Split, is_validation, read_split, unit_hash

GOLDEN = [2, 9, 17, 20]
GOLDEN_HASH = 0.16564699010451844
IDS = np.arange(1, 100_001, dtype=np.int64) * 13


def test_a_listing_keeps_its_part_whatever_else_is_there() -> None:
    split = Split(0.15)
    whole = split.is_holdout(IDS)
    shuffled = np.random.default_rng(0).permutation(len(IDS))
    assert (split.is_holdout(IDS[shuffled]) == whole[shuffled]).all()
    assert (split.is_holdout(IDS[:10]) == whole[:10]).all()


def test_the_split_never_changes() -> None:
    # Models of last year are compared with today's on the same listings: these numbers are for ever.
    assert np.flatnonzero(Split(0.15).is_holdout(np.arange(1, 41))).tolist() == GOLDEN
    assert unit_hash(np.array([2**63 - 1]), 1)[0] == pytest.approx(GOLDEN_HASH, abs=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_the_share_is_met(share: float) -> None:
    assert Split(share).is_holdout(IDS).mean() == pytest.approx(share, abs=0.005)


def test_a_larger_share_holds_the_smaller() -> None:
    assert not (Split(0.1).is_holdout(IDS) & ~Split(0.2).is_holdout(IDS)).any()


def test_the_validation_slice_is_independent_of_the_holdout() -> None:
    held = Split(0.15).is_holdout(IDS)
    assert is_validation(IDS[~held], 0.1).mean() == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("text", ["id\n5\n3\n", "3\n5", '"id"\r\n"5"\r\n\r\n"3"\r\n', "\ufeffID\n 3 \n5\n5\n"])
def test_ids_come_from_a_file_with_or_without_heading(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids.csv").write_text(text, "utf-8")
    split = read_split(str(tmp_path / "ids.csv"), 0.15)
    assert split.is_holdout(np.array([1, 3, 4, 5])).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "holds no ids"),
        (b"id\n", "holds no ids"),
        (b"id\n17\n1e3\n", '"1e3" in line 3'),
        (b"id,price\n", '"id,price" in line 1'),
        (b"9223372036854775808\n", "in line 1"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "ids.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match="file of holdout ids") as error:
        read_split(str(file), 0.15)
    assert said in str(error.value)


@pytest.mark.parametrize("ids", [None, np.array([3, 5, 2**60])])
def test_a_model_carries_its_split(tmp_path: Path, ids: np.ndarray | None) -> None:
    split = Split(0.3, ids, None if ids is None else "ids.csv")
    for name, content in split.ids_file().items():
        (tmp_path / name).write_bytes(content)
    read = Split.of_model({"split": split.as_json()}, tmp_path)
    probe = np.array([1, 3, 5, 2**60, *range(10, 200)])
    assert (read.is_holdout(probe) == split.is_holdout(probe)).all()
    assert (tmp_path / HOLDOUT_FILE).exists() == (ids is not None)
