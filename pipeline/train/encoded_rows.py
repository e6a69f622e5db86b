"""Training rows as numbers: encoded in tasks of Ray Data, read on the training workers batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from pipeline.cluster.arrow_tasks import map_tables
from pipeline.split import Split, is_validation
from pipeline.train.statistics import BATCH_ROWS, TrainingError
from transforms.encode import Encoder, Matrix
from transforms.lift import distinct

Labels = npt.NDArray[np.int8]

# The columns of encoded rows.
_KEY, _FEATURES, _LABEL, _VALIDATION = "key", "features", "label", "validation"
# The label of a row that only pads.
_PADDING = -1


def encoded_rows(
    rows: ray.data.Dataset, split: Split, encoder: Encoder, labels: tuple[str, ...], validation_share: float
) -> ray.data.Dataset:
    """The training rows of a dataset: key, float32 [features], the position of the label, whether early stopping
    watches the row."""
    encode = partial(_encode_batch, split=split, encoder=encoder, labels=labels, validation_share=validation_share)
    return map_tables(rows, encode, batch_size=BATCH_ROWS)


def _encode_batch(
    table: pa.Table, split: Split, encoder: Encoder, labels: tuple[str, ...], validation_share: float
) -> pa.Table:
    contract = encoder.contract
    training = table.filter(pa.array(~split.is_holdout(table[contract.key].to_numpy())))
    keys = training[contract.key]
    features = encoder.table(training)
    return pa.table(
        {
            _KEY: keys,
            _FEATURES: pa.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1]),
            _LABEL: pa.array(label_positions(training[contract.label_name], labels)),
            _VALIDATION: pa.array(is_validation(keys.to_numpy(), validation_share)),
        }
    )


def padded(rows: ray.data.Dataset, count: int, features: int, workers: int) -> ray.data.Dataset:
    """`count` encoded rows, and as many empty ones as divide them evenly.

    Ray Train gives workers equal shares and drops the rest.
    """
    empty = -count % workers
    if not empty:
        return rows
    zeros = pa.repeat(pa.scalar(0, pa.float32()), empty * features)
    table = pa.table(
        {
            _KEY: pa.repeat(0, empty),
            _FEATURES: pa.FixedSizeListArray.from_arrays(zeros, features),
            _LABEL: pa.repeat(pa.scalar(_PADDING, pa.int8()), empty),
            _VALIDATION: pa.repeat(False, empty),
        }
    )
    return rows.union(ray.data.from_arrow(table))


def check_rows(read: int, expected: int) -> None:
    """Raise TrainingError unless as many rows were trained on as were counted before."""
    if read != expected:
        raise TrainingError(
            f"{read:,} of {expected:,} training rows reached the workers: did the dataset change meanwhile? Train again"
        )


def label_positions(column: pa.ChunkedArray, labels: tuple[str, ...]) -> Labels:
    """The position of each row's label among `labels`, int8 [n]."""
    values, indices = distinct(column)
    return np.array([labels.index(value) for value in values], np.int8)[indices]


@dataclass(frozen=True)
class EncodedBatch:
    """Some encoded rows."""

    keys: npt.NDArray[np.int64]
    features: Matrix
    labels: Labels
    validation: npt.NDArray[np.bool_]


def read_batches(shard: Any) -> Iterator[EncodedBatch]:
    """The encoded rows of a Ray Train dataset shard, batch by batch, without those that only pad."""
    for batch in shard.iter_batches(batch_format="pyarrow", batch_size=BATCH_ROWS):
        real = batch[_LABEL].to_numpy() != _PADDING
        table = batch if real.all() else batch.filter(pa.array(real))
        size = table.schema.field(_FEATURES).type.list_size
        features = table[_FEATURES].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        yield EncodedBatch(table[_KEY].to_numpy(), features, table[_LABEL].to_numpy(), table[_VALIDATION].to_numpy())
