"""TreeSHAP (Lundberg 2018) on the trees of XGBoost: what every feature contributed to a score, without XGBoost.

A leaf is reached if every feature on its path meets its condition there. A feature that is left open is taken to meet
it by the
share of the training rows that did. Then a leaf is a game of products, and the Shapley value of a feature in it is
the integral of
a polynomial (Owen 1972), which a few points of Gauss and Legendre give exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Trees that are followed at once: bounds memory.
_TREES = 128
# A branch that no training row took; the product of all conditions is divided by each.
_LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class Conditions:
    """The conditions of all leaves: one for each leaf and feature on its path, leaf after leaf, all [conditions].

    Met by `lower` <= value < `upper`, or by a missing value if `missing`; `share` of the training rows that came by
    met it.
    """

    leaf: Array
    category: Array
    feature: Array
    weight: Array
    lower: Array
    upper: Array
    missing: Array
    share: Array


class Trees:
    """The trees of a multi-class booster."""

    def __init__(self, booster: Mapping[str, Any], categories: int, features: int) -> None:
        """`booster` is XGBoost's documented JSON model. Raises KeyError or ValueError for another one."""
        learner = booster["learner"]
        model = learner["gradient_booster"]["model"]
        start = np.array(learner["learner_model_param"]["base_score"].strip("[]").split(","), np.float64)
        self._shape = categories, features
        self.base = np.broadcast_to(start, categories).copy()
        parts = []
        for first in range(0, len(model["trees"]), _TREES):
            trees, info = model["trees"][first : first + _TREES], np.array(model["tree_info"][first : first + _TREES])
            parts += list(self._leaves(_joined(trees, info)))
        self._conditions = _numbered(parts)
        self._starts = np.flatnonzero(np.diff(self._conditions.leaf, prepend=-1))
        longest = int(np.diff(self._starts, append=len(self._conditions.leaf)).max(initial=1))
        points, weights = np.polynomial.legendre.leggauss((longest + 1) // 2)
        self._points, self._weights = (points + 1) / 2, weights / 2

    def contributions(self, vector: Array) -> Array:
        """What each feature of a float32 vector, NaN being missing, added to the score of each category:
        [categories, features].
        """
        at, (categories, features) = self._conditions, self._shape
        value = vector[at.feature]
        met = np.where(np.isnan(value), at.missing, (at.lower <= value) & (value < at.upper))
        integral = np.zeros(len(met))
        for point, weight in zip(self._points, self._weights, strict=True):
            factor = at.share * (1 - point) + met * point
            integral += weight * np.multiply.reduceat(factor, self._starts)[at.leaf] / factor if len(factor) else 0
        shares = at.weight * (met - at.share) * integral
        return np.bincount(at.category * features + at.feature, shares, categories * features).reshape(
            categories, features
        )

    def _leaves(self, nodes: Mapping[str, Array]) -> Iterator[Conditions]:
        """The conditions of the leaves, level by level; what the leaves are worth on average goes to the base."""
        node = nodes["roots"]
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
            sides = [_child(nodes, node, state, goes_left) for goes_left in (True, False)]
            node = np.concatenate([side[0] for side in sides])
            state = {name: np.concatenate([side[1][name] for side in sides]) for name in state}

    def _conditions_of(self, nodes: Mapping[str, Array], leaf: Array, state: Mapping[str, Array]) -> Conditions:
        category, weight = (
            nodes["category"][leaf],
            nodes["threshold"][leaf].astype(np.float64),
        )  # a leaf's condition is its weight
        np.add.at(self.base, category, weight * state["share"].prod(axis=1))
        row, feature = np.nonzero(state["used"])
        picked = {name: state[name][row, feature] for name in ("lower", "upper", "missing", "share")}
        return Conditions(leaf=row, category=category[row], feature=feature, weight=weight[row], **picked)


def _joined(trees: Any, categories: Array) -> dict[str, Array]:
    """The nodes of several trees as one array of each attribute; children are positions in them, negative at a leaf."""
    lengths = np.array([len(tree["left_children"]) for tree in trees])
    roots = np.cumsum(lengths) - lengths
    offset = np.repeat(roots, lengths)
    names = {
        "feature": "split_indices",
        "threshold": "split_conditions",
        "missing_left": "default_left",
        "cover": "sum_hessian",
    }
    nodes = {ours: np.concatenate([tree[theirs] for tree in trees]) for ours, theirs in names.items()}
    for side in ("left", "right"):
        child = np.concatenate([tree[f"{side}_children"] for tree in trees]).astype(np.int64)
        nodes[side] = np.where(child < 0, -1, child + offset)
    return {**nodes, "roots": roots, "category": np.repeat(categories, lengths)}


def _child(
    nodes: Mapping[str, Array], node: Array, state: Mapping[str, Array], goes_left: bool
) -> tuple[Array, dict[str, Array]]:
    """The children of one side, and what leads to them."""
    child = nodes["left" if goes_left else "right"][node]
    after = {name: part.copy() for name, part in state.items()}
    at = np.arange(len(node)), nodes["feature"][node]
    threshold = nodes["threshold"][node]
    if goes_left:
        after["upper"][at] = np.minimum(after["upper"][at], threshold)
    else:
        after["lower"][at] = np.maximum(after["lower"][at], threshold)
    after["missing"][at] &= nodes["missing_left"][node].astype(bool) == goes_left
    after["share"][at] *= np.maximum(nodes["cover"][child].astype(np.float64) / nodes["cover"][node], _LEAST_SHARE)
    after["used"][at] = True
    return child, after


def _numbered(parts: list[Conditions]) -> Conditions:
    """All conditions as one, the leaves numbered through."""
    joined = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Conditions)}
    number = np.concatenate([part.leaf + np.int64(first) * 2**32 for first, part in enumerate(parts)])
    return Conditions(**{**joined, "leaf": np.unique(number, return_inverse=True)[1]})
