"""The trees of an ensemble as plain arrays: training exports them, and whoever explains a model reads them.

`trees.npz` in a model's folder is a zip of numpy arrays, one for each field of `TreeArrays`; reading it runs no code.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from nightprice.errors import first_line

TREES = "trees.npz"

Array = npt.NDArray[Any]


def _none() -> Array:
    return np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """The nodes of all trees of an ensemble, tree after tree, each tree from its root at position 0.

    >>> stump = TreeArrays(
    ...     tree=np.array([0, 0, 0]), feature=np.array([2, 0, 0]), threshold=np.array([0.5, 0, 0]),
    ...     left=np.array([1, -1, -1]), right=np.array([2, -1, -1]), missing_left=np.array([True, False, False]),
    ...     leaf=np.array([1, 2]), category=np.array([0, 0]), weight=np.array([-1, 1]))
    >>> TreeArrays.from_bytes(stump.to_bytes()).left.tolist()
    [1, -1, -1]
    """

    tree: Array
    """[nodes] The number of the tree, ascending."""
    feature: Array
    """[nodes] The position in the feature vector that a split looks at."""
    threshold: Array
    """[nodes] float32"""
    left: Array
    """[nodes] The child's position within the tree, -1 at a leaf."""
    right: Array
    missing_left: Array
    """[nodes] Whether a missing value goes left."""
    leaf: Array
    """[leaves] A position among all nodes. Each entry adds `weight` to the score of the label `category`."""
    category: Array
    weight: Array
    cover: Array = field(default_factory=_none)
    """[nodes] The weight of the training rows that reached the node; empty if nobody explains the model."""
    base: Array = field(default_factory=_none)
    """[labels] The scores before the first tree; empty if nobody explains the model."""

    @property
    def roots(self) -> Array:
        """[trees] The position of each root among all nodes."""
        return np.flatnonzero(np.diff(self.tree, prepend=-1))

    @property
    def root_of_node(self) -> Array:
        """[nodes] The position of the root of each node's tree among all nodes."""
        roots = self.roots
        return np.repeat(roots, np.diff(roots, append=len(self.tree)))

    def to_bytes(self) -> bytes:
        """The content of `trees.npz`: the same arrays give the same bytes."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name), kind) for name, kind in _TYPES.items()}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "TreeArrays":
        """What `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(**{item.name: arrays[item.name] for item in fields(cls)})
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            OSError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ValueError(f"not a file of trees ({first_line(error)})") from error


_TYPES: dict[str, type[np.generic]] = {
    "tree": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "left": np.int32,
    "right": np.int32,
    "missing_left": np.bool_,
    "leaf": np.int32,
    "category": np.int32,
    "weight": np.float32,
    "cover": np.float32,
    "base": np.float64,
}
