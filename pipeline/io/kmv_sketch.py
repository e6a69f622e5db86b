"""A KMV sketch (k minimum values): how many rows repeat a key, counted in bounded memory while blocks pass by."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nightprice.hashing import mix64

# Repeats are counted among this many hashes; the estimate's error is then about 0.2 %.
SKETCH_SIZE = 1 << 18
_NO_BOUND = np.iinfo(np.uint64).max


def task_size(task: int) -> int:
    """How many hashes the task of this number, counted from 0, keeps.

    Every task returns its sketch to the driver, which holds all of them until the last one arrives: 4 MB each would
    be 400 MB in 100 tasks. The n-th task knows that there are n of them, and that its share of the smallest hashes of
    all is 1/n.
    """
    return max(SKETCH_SIZE // (1 + task), 1)


@dataclass
class KmvSketch:
    """The smallest hashes of all keys and how often each occurs: all rows whose hash is below `bound` are counted.

    Sketches of parts of the rows add up to the sketch of all.
    """

    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Ascending, without repeats."""
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    bound: int = _NO_BOUND

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64]) -> "KmvSketch":
        """The sketch of the keys of some rows."""
        hashes, counts = np.unique(mix64(keys.astype(np.uint64)), return_counts=True)
        return cls(hashes, counts).shrunk(SKETCH_SIZE)

    def shrunk(self, size: int) -> "KmvSketch":
        """The same with at most `size` hashes, the smallest."""
        if len(self.hashes) <= size:
            return self
        return KmvSketch(self.hashes[:size].copy(), self.counts[:size].copy(), int(self.hashes[size]))

    def __add__(self, other: "KmvSketch") -> "KmvSketch":
        bound = min(self.bound, other.bound)
        large, small = sorted((self._below(bound), other._below(bound)), key=lambda sketch: len(sketch.hashes))[::-1]
        # Not `np.unique` of both, which would sort the large one anew for every block that is added.
        places = np.searchsorted(large.hashes, small.hashes)
        known = np.zeros(len(small.hashes), np.bool_)
        inside = places < len(large.hashes)
        known[inside] = large.hashes[places[inside]] == small.hashes[inside]
        counts = large.counts.copy()
        counts[places[known]] += small.counts[known]
        hashes = np.insert(large.hashes, places[~known], small.hashes[~known])
        counts = np.insert(counts, places[~known], small.counts[~known])
        return KmvSketch(hashes, counts, bound).shrunk(SKETCH_SIZE)

    def _below(self, bound: int) -> "KmvSketch":
        counted = int(np.searchsorted(self.hashes, np.uint64(bound)))
        return KmvSketch(self.hashes[:counted], self.counts[:counted], bound)

    def repeats(self, rows: int) -> int:
        """How many of `rows` repeat a key that another row has.

        Exact as long as no task had more distinct keys than it may keep; estimated beyond.
        """
        sampled = int(self.counts.sum())
        if not sampled:
            return 0
        repeated = sampled - len(self.counts)
        return repeated if sampled == rows else round(repeated / sampled * rows)
