"""Encoded rows on a worker's disk, read back as often as needed."""

import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.train.encoded_rows import Labels
from pipeline.train.statistics import BATCH_ROWS
from transforms.encode import Matrix


class Spool:
    """Encoded rows in two files on this machine's disk, appended once, read back in order.

    XGBoost passes several times over its input and takes labels and features from different passes. Read again from
    Ray Data, the rows may come in another order (and cost another run of the pipeline); from here they cannot. The
    files have no names, so that nothing is left of a worker that is killed.
    """

    def __init__(self, features: int) -> None:
        """`features` is the length of a row."""
        self._size = features
        self._features = tempfile.TemporaryFile()  # noqa: SIM115 it ends with the spool
        self._labels = tempfile.TemporaryFile()  # noqa: SIM115
        self.rows = 0

    def append(self, features: Matrix, labels: Labels) -> None:
        """Add rows: float32 [n, features] and int8 [n]."""
        for file, values in ((self._features, features), (self._labels, labels)):
            file.write(np.ascontiguousarray(values).tobytes())
            file.flush()
        self.rows += len(labels)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[tuple[Matrix, Labels]]:
        """The rows in the order of appending, `rows` at a time; without rows one empty batch, as XGBoost needs one."""
        for start in range(0, max(1, self.rows), rows):
            count = min(rows, self.rows - start)
            features = _read(self._features, np.float32, start * self._size, count * self._size)
            yield features.reshape(-1, self._size), _read(self._labels, np.int8, start, count)


def _read(file: IO[bytes], kind: type[np.generic], start: int, count: int) -> npt.NDArray[Any]:
    """Values of a file by their position, whatever else reads there."""
    size = np.dtype(kind).itemsize
    return np.frombuffer(os.pread(file.fileno(), count * size, start * size), kind)
