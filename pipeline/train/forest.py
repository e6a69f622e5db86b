"""The baseline: the notebook's random forest on the contract's baseline features, its trees divided among workers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight

from pipeline import progress
from pipeline.settings import ForestSettings
from pipeline.train.encoded_rows import check_rows, read_batches
from pipeline.train.estimator import Estimator, Trained, TrainingRun, run_workers, threads
from pipeline.train.onnx_export import to_onnx
from pipeline.train.watchdog import with_heartbeats
from registry.trees import TreeArrays
from transforms.contract import Contract
from transforms.encode import Matrix

Arrays = dict[str, npt.NDArray[Any]]


class RandomForest(Estimator):
    """scikit-learn's random forest, tree by tree: every tree depends on its seed alone, not on who grows it."""

    def fit(self, run: TrainingRun) -> Trained:
        config = {
            "seeds": tree_seeds(run.settings.seed, run.settings.random_forest.trees).tolist(),
            "forest": run.settings.random_forest.model_dump(),
            "columns": baseline_columns(run.contract),
            "categories": len(run.labels),
            "sample": run.sample,
            "threads": run.threads,
            "rows": sum(run.counts),
            "heartbeats": run.watchdog.heartbeats,
        }
        grown = run_workers(run, train_worker, config, split_rows=False)
        return merged(grown, len(run.labels), run.contract)


def baseline_columns(contract: Contract) -> list[int]:
    """The positions of the baseline's features in a feature vector, in the baseline's own order."""
    return [contract.features.index(name) for name in contract.baseline_features]


def tree_seeds(seed: int, trees: int) -> npt.NDArray[np.int64]:
    """One seed per tree: those that scikit-learn's RandomForestClassifier(random_state=seed) gives its trees."""
    random = np.random.RandomState(seed)
    return np.array([random.randint(np.iinfo(np.int32).max) for _ in range(trees)], np.int64)


def train_worker(config: dict[str, Any]) -> Arrays:
    """What every Ray Train worker runs: read all rows, grow its trees, return them.

    Every worker needs all rows, but few columns: with five features about 30 bytes a row.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    features, labels = _rows_in_order(config["columns"], config["heartbeats"])
    check_rows(len(labels), config["rows"])
    numbers = range(rank, len(config["seeds"]), workers)
    return grow(features, labels, {number: config["seeds"][number] for number in numbers}, config)


def _rows_in_order(columns: list[int], heartbeats: Any) -> tuple[Matrix, npt.NDArray[np.int8]]:
    """All rows, sorted: a bootstrap sample picks rows by position, and Ray Data may hand them out in any order."""
    batches = with_heartbeats(read_batches(ray.train.get_dataset_shard("train")), heartbeats)
    read = [(batch.keys, batch.features[:, columns], batch.labels) for batch in batches]
    keys, features, labels = (np.concatenate(parts) for parts in zip(*read, strict=True))
    order = np.lexsort((labels, *features.T, keys))
    return features[order], labels[order]


def grow(features: Matrix, labels: npt.NDArray[np.int8], seeds: dict[int, int], config: dict[str, Any]) -> Arrays:
    """Grow the trees with the given numbers and seeds; returns their nodes, and what they add up to on the sample.

    `features` is float32 [n, baseline features], `labels` int8 [n].
    """
    settings = ForestSettings(**config["forest"])
    balance = "balanced" if settings.class_weight == "balanced" else None
    weights = compute_sample_weight(balance, labels)
    sample = config["sample"][:, config["columns"]]
    total = np.zeros((len(sample), config["categories"]))
    importance = np.zeros(len(config["columns"]))
    parts = []
    # scikit-learn grows a tree without holding Python's lock: threads do, and the data is held once.
    with ThreadPoolExecutor(threads(config["threads"])) as pool:
        progress.begin("growing trees", trees=len(seeds))
        trees = pool.map(lambda seed: grow_tree(features, labels, weights, seed, settings), seeds.values())
        for number, tree in zip(seeds, trees, strict=True):
            progress.advance(trees=1)
            total[:, tree.classes_] += tree.predict_proba(sample)
            importance += tree.feature_importances_
            parts.append(_nodes(tree, number, config["categories"]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} | {
        "total": total,
        "importance": importance,
    }


def grow_tree(
    features: Matrix, labels: npt.NDArray[np.int8], weights: npt.NDArray[Any], seed: int, settings: ForestSettings
) -> DecisionTreeClassifier:
    """One tree on a bootstrap sample, as the notebook's scikit-learn grew a tree with this seed.

    Since version 1.9, RandomForestClassifier draws the rows of heavier categories more often instead of weighing those
    drawn evenly, and differs for class_weight="balanced": 0.6033 accuracy on New York, not the notebook's 0.6047.
    """
    rows = len(labels)
    picked = np.bincount(np.random.RandomState(seed).randint(0, rows, rows, dtype=np.int32), minlength=rows)
    tree = DecisionTreeClassifier(
        max_features="sqrt", max_depth=settings.max_depth, min_samples_leaf=settings.min_samples_leaf, random_state=seed
    )
    return tree.fit(features, labels, sample_weight=weights * picked)


def _nodes(fitted: DecisionTreeClassifier, number: int, categories: int) -> Arrays:
    """The arrays of one tree, with the probabilities of its leaves."""
    tree = fitted.tree_
    probabilities = np.zeros((tree.node_count, categories), np.float32)
    values = tree.value[:, 0, :]
    probabilities[:, fitted.classes_] = values / values.sum(axis=1, keepdims=True)
    return {
        "tree": np.full(tree.node_count, number, np.int32),
        "feature": tree.feature.astype(np.int16),
        "threshold": float32_below(tree.threshold),
        "left": tree.children_left.astype(np.int32),
        "right": tree.children_right.astype(np.int32),
        "missing_left": tree.missing_go_to_left.astype(np.bool_),
        "probabilities": probabilities,
    }


def float32_below(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above each threshold: a float32 value is below the one exactly if it is below the
    other.
    """
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def merged(parts: list[Arrays], categories: int, contract: Contract) -> Trained:
    """The trees of all workers as one forest, in the order of their numbers."""
    nodes = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in ("total", "importance")
    }
    order = np.argsort(nodes["tree"], kind="stable")
    nodes = {name: values[order] for name, values in nodes.items()}
    trees = int(nodes["tree"][-1]) + 1
    leaf, category = np.nonzero((nodes["left"] < 0)[:, None] & (nodes["probabilities"] > 0))
    ensemble = TreeArrays(
        tree=nodes["tree"],
        feature=np.array(baseline_columns(contract))[np.maximum(nodes["feature"], 0)],
        threshold=nodes["threshold"],
        left=nodes["left"],
        right=nodes["right"],
        missing_left=nodes["missing_left"],
        leaf=leaf,
        category=category,
        weight=nodes["probabilities"][leaf, category].astype(np.float64) / trees,
    )
    expected = np.sum([part["total"] for part in parts], axis=0) / trees
    importance = np.sum([part["importance"] for part in parts], axis=0)
    return Trained(
        onnx=to_onnx(ensemble, features=len(contract.features), mode="BRANCH_LEQ", categories=categories),
        expected=expected,
        importance=dict.fromkeys(contract.features, 0.0)
        | dict(zip(contract.baseline_features, (importance / max(importance.sum(), 1e-12)).tolist(), strict=True)),
        facts={"trees": trees, "nodes": len(order)},
    )
