"""How many rows repeat an id, counted in bounded memory while blocks pass by."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# So many distinct ids are counted exactly; beyond, repeats are estimated from the smallest hashes (error about 0.2 %).
SKETCH_SIZE = 1 << 18


@dataclass
class IdSketch:
    """How many rows repeat an id, in bounded memory: the rows of the SKETCH_SIZE smallest hashes are counted."""

    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64]) -> "IdSketch":
        hashes, counts = np.unique(_mixed(ids.astype(np.uint64)), return_counts=True)
        return cls(hashes[:SKETCH_SIZE], counts[:SKETCH_SIZE])

    def __add__(self, other: "IdSketch") -> "IdSketch":
        hashes, inverse = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([self.counts, other.counts]), len(hashes)).astype(np.int64)
        return IdSketch(hashes[:SKETCH_SIZE], counts[:SKETCH_SIZE])

    def repeats(self, rows: int) -> int:
        """How many of `rows` repeat an id that another row has: exact up to SKETCH_SIZE distinct ids."""
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
