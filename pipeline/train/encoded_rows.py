"""Training rows as numbers: encoded on the way in, kept on a worker's disk, read back in pieces."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from pipeline.cluster.arrow_tasks import map_tables
from pipeline.split import Split, is_validation
from pipeline.train.statistics import BATCH_ROWS, TrainingError
from transforms.contract import CATEGORY, FEATURES
from transforms.encode import Matrix, Vocabulary, encode_table
from transforms.lift import distinct

Labels = npt.NDArray[np.int8]

# The columns of encoded rows.
_ID, _FEATURES, _LABEL, _VALIDATION = "id", "features", "label", "validation"
# The label of a row that is none.
_EMPTY = -1


def encoded_rows(
    rows: ray.data.Dataset, split: Split, vocabulary: Vocabulary, labels: tuple[str, ...], validation_share: float
) -> ray.data.Dataset:
    """The training rows of a dataset: id, float32 [17] features, the position of the category, whether early
    stopping watches it.
    """
    encode = partial(
        _encode_batch, split=split, vocabulary=vocabulary, labels=labels, validation_share=validation_share
    )
    return map_tables(rows, encode, batch_size=BATCH_ROWS)


def _encode_batch(
    table: pa.Table, split: Split, vocabulary: Vocabulary, labels: tuple[str, ...], validation_share: float
) -> pa.Table:
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


def padded(rows: ray.data.Dataset, count: int, workers: int) -> ray.data.Dataset:
    """`count` encoded rows, and as many empty ones as divide them evenly: Ray Train gives equal shares and drops
    what is over.
    """
    empty = -count % workers
    if not empty:
        return rows
    table = pa.table(
        {
            _ID: pa.repeat(0, empty),
            _FEATURES: pa.FixedSizeListArray.from_arrays(
                pa.repeat(pa.scalar(0, pa.float32()), empty * len(FEATURES)), len(FEATURES)
            ),
            _LABEL: pa.repeat(pa.scalar(_EMPTY, pa.int8()), empty),
            _VALIDATION: pa.repeat(False, empty),
        }
    )
    return rows.union(ray.data.from_arrow(table))


def check_rows(found: int, expected: int) -> None:
    """Raise TrainingError unless as many rows were trained on as were counted before."""
    if found != expected:
        raise TrainingError(
            f"{found:,} of {expected:,} training rows reached the workers: did the dataset change meanwhile? "
            "Train again"
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
    """The encoded rows of a Ray Train dataset shard, batch by batch, without the empty ones of `padded`."""
    for batch in shard.iter_batches(batch_format="pyarrow", batch_size=BATCH_ROWS):
        there = batch[_LABEL].to_numpy() != _EMPTY
        table = batch if there.all() else batch.filter(pa.array(there))
        flat = table[_FEATURES].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield Piece(
            table[_ID].to_numpy(),
            flat.reshape(-1, len(FEATURES)),
            table[_LABEL].to_numpy(),
            table[_VALIDATION].to_numpy(),
        )


class Spool:
    """Encoded rows in two files on this machine's disk, appended once, read back in order as often as needed.

    XGBoost passes several times over its input and takes labels and features from different passes. Read again from
    Ray Data, the rows may come in another order (and cost another run of the pipeline); from here they cannot.
    The files have no names, so that nothing is left of a worker that is killed.
    """

    def __init__(self) -> None:
        self._features, self._labels = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 they end with the spool
        self.rows = 0

    def append(self, features: Matrix, labels: Labels) -> None:
        """Add rows: float32 [n, 17] and int8 [n]."""
        for file, values in ((self._features, features), (self._labels, labels)):
            file.write(np.ascontiguousarray(values).tobytes())
            file.flush()
        self.rows += len(labels)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[Matrix, Labels]]:
        """The rows in the order of appending, `rows` at a time; of no rows, one empty batch, as XGBoost needs one."""
        for start in range(0, max(1, self.rows), rows):
            count = min(rows, self.rows - start)
            features = _read(self._features, np.float32, start * len(FEATURES), count * len(FEATURES))
            yield features.reshape(-1, len(FEATURES)), _read(self._labels, np.int8, start, count)


def _read(file: IO[bytes], kind: type[np.generic], start: int, count: int) -> npt.NDArray[Any]:
    """Values of a file by their position, whatever else reads there."""
    size = np.dtype(kind).itemsize
    return np.frombuffer(os.pread(file.fileno(), count * size, start * size), kind)
