"""How many rows repeat an id, counted in bounded memory while blocks pass by."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Among so many hashes repeats are counted; the estimate's error is then about 0.2 %.
SKETCH_SIZE = 1 << 18
_NO_BOUND = np.iinfo(np.uint64).max


def task_size(task: int) -> int:
    """How many hashes the task of this number keeps, counted from 0.

    Every task returns its sketch to the driver, which holds all of them until the last: 4 MB each would be 400 MB in
    100 tasks.
    The n-th task knows that there are n of them, and that its share of the smallest hashes of all is 1/n.
    """
    return max(SKETCH_SIZE // (1 + task), 1)


@dataclass
class IdSketch:
    """How many rows repeat an id, in bounded memory: all rows whose hash is below `bound` are counted."""

    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    bound: int = _NO_BOUND

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64]) -> "IdSketch":
        hashes, counts = np.unique(_mixed(ids.astype(np.uint64)), return_counts=True)
        return cls(hashes, counts).shrunk(SKETCH_SIZE)

    def shrunk(self, size: int) -> "IdSketch":
        """The same with at most `size` hashes, the smallest."""
        if len(self.hashes) <= size:
            return self
        return IdSketch(self.hashes[:size].copy(), self.counts[:size].copy(), int(self.hashes[size]))

    def __add__(self, other: "IdSketch") -> "IdSketch":
        hashes, inverse = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([self.counts, other.counts]), len(hashes)).astype(np.int64)
        bound = min(self.bound, other.bound)
        known = int(np.searchsorted(hashes, np.uint64(bound)))
        return IdSketch(hashes[:known], counts[:known], bound).shrunk(SKETCH_SIZE)

    def repeats(self, rows: int) -> int:
        """How many of `rows` repeat an id that another row has: exact while no task had more than its share of
        distinct ids.
        """
        sampled = int(self.counts.sum())
        if not sampled:
            return 0
        repeated = sampled - len(self.counts)
        return repeated if sampled == rows else round(repeated / sampled * rows)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of splitmix64: neighbouring ids become unrelated 64-bit numbers, without collisions."""
    mixed = values
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
