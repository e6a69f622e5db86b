"""TreeSHAP (Lundberg 2018) on boosted trees: what every feature contributed to a score, without the training library.

A leaf is reached if every feature on its path meets its condition there. A feature that is left open is taken to meet
it by the share of the training rows that did. Then a leaf is a game of products, and the Shapley value of a feature in
it is the integral of a polynomial (Owen 1972), which a few points of Gauss and Legendre give exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.trees import TreeArrays

Array = npt.NDArray[Any]

# Trees that are followed at once: bounds memory.
_TREES = 128
# A branch that no training row took; the product of all conditions is divided by each.
_MIN_SHARE = 1e-9


@dataclass(frozen=True)
class Conditions:
    """The conditions of all leaves: one for each leaf and feature on its path, leaf after leaf, all [conditions].

    Met by `lower` <= value < `upper`, or by a missing value if `missing`; `share` of the training rows that reached
    the splits met it.
    """

    leaf: Array
    category: Array
    feature: Array
    weight: Array
    lower: Array
    upper: Array
    missing: Array
    share: Array


class TreeShap:
    """The contributions of an ensemble whose scores are sums of leaves, one label a leaf."""

    def __init__(self, trees: TreeArrays, labels: int, features: int) -> None:
        """`trees` needs `cover` and `base`. Raises IndexError or ValueError for trees that don't fit."""
        self._shape = labels, features
        self.base = np.broadcast_to(trees.base, labels).astype(np.float64)
        nodes = _nodes(trees)
        parts = []
        for first in range(0, len(trees.roots), _TREES):
            parts += list(self._leaves(nodes, trees.roots[first : first + _TREES]))
        self._conditions = _renumber(parts)
        self._starts = np.flatnonzero(np.diff(self._conditions.leaf, prepend=-1))
        longest = int(np.diff(self._starts, append=len(self._conditions.leaf)).max(initial=1))
        points, weights = np.polynomial.legendre.leggauss((longest + 1) // 2)
        self._points, self._weights = (points + 1) / 2, weights / 2

    def contributions(self, vector: Array) -> Array:
        """What each feature added to the score of each label, [labels, features].

        `vector` is float32 [features]; NaN is missing.
        """
        at, (labels, features) = self._conditions, self._shape
        value = vector[at.feature]
        met = np.where(np.isnan(value), at.missing, (at.lower <= value) & (value < at.upper))
        integral = np.zeros(len(met))
        for point, weight in zip(self._points, self._weights, strict=True):
            factor = at.share * (1 - point) + met * point
            integral += weight * np.multiply.reduceat(factor, self._starts)[at.leaf] / factor if len(factor) else 0
        shares = at.weight * (met - at.share) * integral
        return np.bincount(at.category * features + at.feature, shares, labels * features).reshape(labels, features)

    def _leaves(self, nodes: Mapping[str, Array], node: Array) -> Iterator[Conditions]:
        """The conditions of the leaves below `node`, level by level; their mean goes to the base."""
        size = (len(node), self._shape[1])
        state = {
            "lower": np.full(size, -np.inf, np.float32),
            "upper": np.full(size, np.inf, np.float32),
            "missing": np.ones(size, bool),
            "share": np.ones(size),
            "used": np.zeros(size, bool),
        }
        while len(node):
            is_leaf = nodes["left"][node] < 0
            yield self._conditions_of(nodes, node[is_leaf], {name: part[is_leaf] for name, part in state.items()})
            node, state = node[~is_leaf], {name: part[~is_leaf] for name, part in state.items()}
            sides = [_child(nodes, node, state, side) for side in ("left", "right")]
            node = np.concatenate([child for child, _ in sides])
            state = {name: np.concatenate([after[name] for _, after in sides]) for name in state}

    def _conditions_of(self, nodes: Mapping[str, Array], leaf: Array, state: Mapping[str, Array]) -> Conditions:
        category, weight = nodes["category"][leaf], nodes["weight"][leaf]
        np.add.at(self.base, category, weight * state["share"].prod(axis=1))
        row, feature = np.nonzero(state["used"])
        picked = {name: state[name][row, feature] for name in ("lower", "upper", "missing", "share")}
        return Conditions(leaf=row, category=category[row], feature=feature, weight=weight[row], **picked)


def _nodes(trees: TreeArrays) -> dict[str, Array]:
    """By attribute the values of all nodes; children are positions among all nodes, negative at a leaf."""
    category, weight = np.zeros(len(trees.tree), np.intp), np.zeros(len(trees.tree))
    category[trees.leaf], weight[trees.leaf] = trees.category, trees.weight
    is_leaf, root = trees.left < 0, trees.root_of_node
    return {
        "feature": trees.feature,
        "threshold": trees.threshold,
        "missing_left": trees.missing_left,
        "cover": trees.cover.astype(np.float64),
        "left": np.where(is_leaf, -1, trees.left + root),
        "right": np.where(is_leaf, -1, trees.right + root),
        "category": category,
        "weight": weight,
    }


def _child(
    nodes: Mapping[str, Array], node: Array, state: Mapping[str, Array], side: str
) -> tuple[Array, dict[str, Array]]:
    """The children of one side, and what leads to them."""
    child, is_left = nodes[side][node], side == "left"
    after = {name: part.copy() for name, part in state.items()}
    at = np.arange(len(node)), nodes["feature"][node]
    threshold = nodes["threshold"][node]
    if is_left:
        after["upper"][at] = np.minimum(after["upper"][at], threshold)
    else:
        after["lower"][at] = np.maximum(after["lower"][at], threshold)
    after["missing"][at] &= nodes["missing_left"][node] == is_left
    after["share"][at] *= np.maximum(nodes["cover"][child] / nodes["cover"][node], _MIN_SHARE)
    after["used"][at] = True
    return child, after


def _renumber(parts: list[Conditions]) -> Conditions:
    """All conditions as one, the leaves numbered through."""
    joined = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Conditions)}
    number = np.concatenate([part.leaf + np.int64(first) * 2**32 for first, part in enumerate(parts)])
    return Conditions(**{**joined, "leaf": np.unique(number, return_inverse=True)[1]})
