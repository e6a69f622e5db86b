"""Training rows as numbers: encoded on the way in, kept on a worker's disk, read back in pieces."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from pipeline.split import Split, is_validation
from pipeline.train.learn import BATCH_ROWS
from transforms.contract import CATEGORY, FEATURES
from transforms.encode import Matrix, Vocabulary, encode_table
from transforms.lift import distinct

Labels = npt.NDArray[np.int8]

# The columns of encoded rows.
_ID, _FEATURES, _LABEL, _VALIDATION = "id", "features", "label", "validation"


def encoded_rows(
    rows: ray.data.Dataset, split: Split, vocabulary: Vocabulary, labels: tuple[str, ...], validation_share: float
) -> ray.data.Dataset:
    """The training rows of a dataset: id, float32 [17] features, the position of the category, whether early stopping watches it."""
    encode = partial(_encode_batch, split=split, vocabulary=vocabulary, labels=labels, validation_share=validation_share)
    return rows.map_batches(encode, batch_format="pyarrow", batch_size=BATCH_ROWS, zero_copy_batch=True)


def _encode_batch(table: pa.Table, split: Split, vocabulary: Vocabulary, labels: tuple[str, ...], validation_share: float) -> pa.Table:
    training = table.filter(pa.array(~split.is_holdout(table["id"].to_numpy())))
    features = pa.FixedSizeListArray.from_arrays(encode_table(training, vocabulary).ravel(), len(FEATURES))
    return pa.table(
        {
            _ID: training["id"],
            _FEATURES: features,
            _LABEL: pa.array(category_positions(training[CATEGORY], labels)),
            _VALIDATION: pa.array(is_validation(training["id"].to_numpy(), validation_share)),
        }
    )


def category_positions(column: pa.ChunkedArray, labels: tuple[str, ...]) -> Labels:
    """The position of each row's category among the labels, int8 [n]."""
    values, indices = distinct(column)
    return np.array([labels.index(value) for value in values], np.int8)[indices]


@dataclass(frozen=True)
class Piece:
    """Some encoded rows."""

    ids: npt.NDArray[np.int64]
    features: Matrix
    labels: Labels
    validation: npt.NDArray[np.bool_]


def read_pieces(shard: Any) -> Iterator[Piece]:
    """The encoded rows of a Ray Train dataset shard, batch by batch."""
    for table in shard.iter_batches(batch_format="pyarrow", batch_size=BATCH_ROWS):
        flat = table[_FEATURES].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield Piece(table[_ID].to_numpy(), flat.reshape(-1, len(FEATURES)), table[_LABEL].to_numpy(), table[_VALIDATION].to_numpy())


class Spool:
    """Encoded rows in two files on this machine's disk, appended once, read back in order as often as needed.

    XGBoost passes several times over its input and takes labels and features from different passes. Read again from
    Ray Data, the rows may come in another order (and cost another run of the pipeline); from here they cannot.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._features, self._labels = folder / f"{name}.f32", folder / f"{name}.i8"
        self.rows = 0
        for file in (self._features, self._labels):
            file.touch(exist_ok=False)

    def append(self, features: Matrix, labels: Labels) -> None:
        """Add rows: float32 [n, 17] and int8 [n]."""
        for file, values in ((self._features, features), (self._labels, labels)):
            with file.open("ab") as stream:
                stream.write(np.ascontiguousarray(values).tobytes())
        self.rows += len(labels)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[Matrix, Labels]]:
        """The rows in the order of appending, `rows` at a time."""
        with self._features.open("rb") as features, self._labels.open("rb") as labels:
            while len(chunk := np.fromfile(labels, np.int8, rows)):
                yield np.fromfile(features, np.float32, len(chunk) * len(FEATURES)).reshape(-1, len(FEATURES)), chunk
