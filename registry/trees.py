"""The trees of an ensemble as plain arrays: training exports them, and whoever explains a model reads them.

`trees.npz` in a model's folder is a zip of numpy arrays, one for each field of `TreeArrays`; reading it runs no code.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from nightprice.errors import first_line

TREES = "trees.npz"
# As deep as no tree that was learned from rows; ONNX Runtime follows a branch by recursion, and dies near 30,000.
MOST_LEVELS = 1_000
# Of the arrays in `trees.npz`: a zip of 1 MB may hold 1 GB.
MOST_UNPACKED_BYTES = 2**30

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
        return root_of_node(self.tree)

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
            _check_unpacked_size(content)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                trees = cls(**{item.name: _typed(arrays, item.name) for item in fields(cls)})
            check_structure(trees.tree, trees.feature, trees.left, trees.right)
            return trees
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            OSError,
            MemoryError,
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


def _typed(arrays: Mapping[str, Array], name: str) -> Array:
    array = arrays[name]
    if array.dtype != _TYPES[name]:
        raise ValueError(f"{name} has the type {array.dtype}")
    return array


def root_of_node(tree: Array) -> Array:
    """[nodes] The position of the root of each node's tree among all nodes, from the number of each node's tree."""
    roots = np.flatnonzero(np.diff(tree, prepend=-1))
    return np.repeat(roots, np.diff(roots, append=len(tree)))


def check_structure(tree: Array, feature: Array, left: Array, right: Array, features: int | None = None) -> None:
    """Raise ValueError unless these arrays [nodes] are trees: no node has two parents, or MOST_LEVELS above it.

    `features` is how many there are to look at, None if that is checked elsewhere.
    """
    if {array.shape for array in (tree, feature, left, right)} != {(len(tree),)} or not len(tree):
        raise ValueError("its nodes are incomplete")
    if tree[0] < 0 or (tree[1:] < tree[:-1]).any():
        raise ValueError("its trees are not in order")
    (branches,) = np.nonzero(left >= 0)
    parents, root = np.tile(branches, 2), root_of_node(tree)
    children = root[parents] + np.concatenate([left[branches], right[branches]])
    # Further on in the same tree: no branch leads back, or out of it.
    if not ((children > parents) & (children < len(tree))).all() or (tree[children] != tree[parents]).any():
        raise ValueError("a branch leads out of its tree, or back")
    parents_of = np.bincount(children, minlength=len(tree))
    if (parents_of > 1).any():
        raise ValueError("a node has two parents")
    if (feature[branches] < 0).any() or (features is not None and (feature[branches] >= features).any()):
        raise ValueError("a branch looks at a feature that does not exist")
    _check_depth(np.flatnonzero(parents_of == 0), root, left, right)


def _check_depth(level: Array, root: Array, left: Array, right: Array) -> None:
    for _ in range(MOST_LEVELS):
        level = level[left[level] >= 0]
        if not len(level):
            return
        level = np.concatenate([root[level] + left[level], root[level] + right[level]])
    raise ValueError(f"a tree is deeper than {MOST_LEVELS} levels")


def _check_unpacked_size(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(item.file_size for item in archive.infolist())
    if size > MOST_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {size:,} bytes")
