"""What else could score the same trees: ONNX Runtime in several ways, XGBoost, Treelite, tables of trees; `make
bench-engines`.

One booster with the champion's parameters, as each engine wants it, on the champion's own rows. Treelite, TL2cgen (with
a C compiler) and Numba are measured if they are installed; none of them belongs to the project. Engines take turns, and
each figure is the fastest of its turns. Every engine is also asked whether a row's probabilities depend on the rows
that it is scored with: ours must not.
"""

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import xgboost

from benchmarks.measure import machine, save_json
from benchmarks.predict import booster_like
from benchmarks.serve import prepared
from benchmarks.serve_models import accepted, champion
from pipeline.train.boosting import booster_to_onnx, tree_arrays
from pipeline.train.onnx_export import INPUT, OUTPUT
from registry.trees import Array, TreeArrays
from transforms.encode import Encoder, Matrix
from transforms.listings import CONTRACT

Score: TypeAlias = Callable[[Matrix], Matrix]

SIZES = (1, 100, 10_000)
BOOSTER = "booster.ubj"
# A row alone, in batches of so many and among WHOLE rows must have the same probabilities.
CUTS = (1, 31, 64, 128)
WHOLE = 2_000
# Rows that a table of trees takes at once: their positions stay in the processor's cache.
LOCKSTEP = 64
OURS = "ours: Artifact.predict"
PLAIN = "ONNX Runtime"


@dataclass(frozen=True)
class Inputs:
    """One model as every engine wants it, and rows for it."""

    booster: Path
    onnx: bytes
    trees: TreeArrays
    matrix: Matrix
    folder: Path
    """Of the trained models."""


@dataclass(frozen=True)
class Engine:
    """`make` builds what scores with so many threads. Raises ImportError if it is not installed."""

    make: Callable[[Inputs, int], Score]
    threads: tuple[int, ...] = (1, 2)
    slow: bool = False
    """Measured on a tenth of the rows."""


@dataclass(frozen=True)
class Timing:
    """One engine with some threads."""

    engine: str
    threads: int
    microseconds_a_row: dict[int, float]
    """By the number of rows handed over at once."""
    same_in_any_batch: bool
    """Whether every row has the same bits in batches of any size and in any place of one."""
    difference: float
    """The largest from ONNX Runtime's probabilities."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the models are kept [default: a temporary folder]")
    options = parser.parse_args()
    with prepared(options.folder) as folder:
        compare(inputs(folder), options.turns, options.seconds)


def inputs(folder: Path) -> Inputs:
    """The booster is trained once for each folder."""
    path = folder / BOOSTER
    if not path.exists():
        booster_like(folder).save_model(path)
    model = champion(folder)
    table = accepted(folder).slice(0, SIZES[-1]).combine_chunks()
    trees = tree_arrays(xgboost.Booster(model_file=path), len(model.labels))
    onnx = booster_to_onnx(trees, len(model.features))
    return Inputs(path, onnx, trees, Encoder(CONTRACT, model.vocabulary).table(table), folder)


def compare(given: Inputs, turns: int, seconds: float) -> None:
    """Measure, print and save."""
    loads = [os.getloadavg()[0]]
    engines, missing = made(given)
    times: dict[tuple[str, int], dict[int, list[float]]] = {key: {size: [] for size in SIZES} for key in engines}
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns} …", flush=True)
        for (name, threads), score in engines.items():
            for size in SIZES:
                found = seconds_each_row(score, rows_for(given, name, size), seconds)
                times[name, threads][size].append(found)
    reference = engines[PLAIN, 1](given.matrix[:WHOLE])
    timings = [
        Timing(
            name,
            threads,
            {size: round(min(found) * 1e6, 2) for size, found in times[name, threads].items()},
            is_same_in_any_batch(score, given.matrix),
            float(np.abs(score(given.matrix[:WHOLE]) - reference).max()),
        )
        for (name, threads), score in engines.items()
    ]
    loads.append(os.getloadavg()[0])
    show(timings, missing)
    nodes = {"trees": len(given.trees.roots), "nodes": len(given.trees.tree)}
    results = {"model": nodes, "timings": [asdict(item) for item in timings], "missing": missing, "load": loads}
    print(f"{nodes['trees']} trees, {nodes['nodes']:,} nodes; load {loads[0]:.1f} to {loads[1]:.1f}")
    print(f"written to {save_json('engines', {'machine': machine() | {'engines': versions()}, **results})}")


def made(given: Inputs) -> tuple[dict[tuple[str, int], Score], dict[str, str]]:
    """What scores, by engine and threads, and why others are missing."""
    found: dict[tuple[str, int], Score] = {}
    missing: dict[str, str] = {}
    for name, engine in ENGINES.items():
        try:
            for threads in engine.threads:
                found[name, threads] = engine.make(given, threads)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def rows_for(given: Inputs, name: str, size: int) -> Iterator[Matrix]:
    """Other rows each time, for ever: with the same ones, the processor would learn every branch."""
    taken = min(size, len(given.matrix) // 10) if ENGINES[name].slow else size
    random = np.random.default_rng(size)
    while True:
        yield given.matrix[random.integers(len(given.matrix) - taken + 1) :][:taken]


def seconds_each_row(score: Score, rows: Iterator[Matrix], seconds: float) -> float:
    score(next(rows))
    spent, scored = 0.0, 0
    while spent < seconds:
        batch = next(rows)
        began = time.perf_counter()
        score(batch)
        spent += time.perf_counter() - began
        scored += len(batch)
    return spent / scored


def is_same_in_any_batch(score: Score, matrix: Matrix) -> bool:
    rows = matrix[: CUTS[-1]]
    whole = score(matrix[:WHOLE])[: len(rows)]
    backwards = score(rows[::-1])[::-1]
    parts = [np.concatenate([score(rows[at : at + cut]) for at in range(0, len(rows), cut)]) for cut in CUTS]
    return all(np.array_equal(whole, other) for other in [backwards, *parts])


def show(timings: list[Timing], missing: dict[str, str]) -> None:
    from rich.console import Console

    from pipeline.cli.render import render_table

    plain = next(item for item in timings if (item.engine, item.threads) == (PLAIN, 1)).microseconds_a_row
    heads = ("threads", *(f"{size:,}" for size in SIZES), "of plain", "difference")
    body = [
        (
            item.engine,
            item.threads,
            *(f"{item.microseconds_a_row[size]:.1f}" for size in SIZES),
            f"{item.microseconds_a_row[SIZES[-1]] / plain[SIZES[-1]]:.2f}",
            f"{item.difference:.0e}",
            "yes" if item.same_in_any_batch else "no",
        )
        for item in timings
    ]
    columns = ("", *heads, "same in any batch")
    Console(width=130).print(render_table("Microseconds a row, by rows at once", columns, body, numbers=heads))
    print(*(f"{name} is missing: {why}" for name, why in missing.items()), sep="\n")


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {}
    for name in ("onnxruntime", "xgboost-cpu", "xgboost", "treelite", "tl2cgen", "numba"):
        try:
            found[name] = version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def session(onnx: bytes, threads: int, entries: dict[str, str] | None = None, **options: Any) -> Any:
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads, chosen.inter_op_num_threads = threads, 1
    for key, value in (entries or {}).items():
        chosen.add_session_config_entry(key, value)
    for key, value in options.items():
        setattr(chosen, key, value)
    return onnxruntime.InferenceSession(onnx, chosen, providers=["CPUExecutionProvider"])


def plain_onnx(given: Inputs, threads: int, **options: Any) -> Score:
    runs = session(given.onnx, threads, **options)
    return lambda rows: runs.run([OUTPUT], {INPUT: np.ascontiguousarray(rows)})[0]


def ours(given: Inputs, threads: int) -> Score:
    return replace(champion(given.folder), session=session(given.onnx, threads)).predict


def in_batches(given: Inputs, threads: int, rows: int) -> Score:
    score = plain_onnx(given, threads)
    return lambda matrix: np.concatenate([score(matrix[at : at + rows]) for at in range(0, len(matrix), rows)])


def shared_out(given: Inputs, threads: int, make: Callable[[Inputs, int], Score]) -> Score:
    """Threads of Python, each with its part of the rows and one thread of the engine."""
    score, pool = make(given, 1), ThreadPoolExecutor(threads)

    def run(matrix: Matrix) -> Matrix:
        if len(matrix) < threads:
            return score(matrix)
        edges = np.linspace(0, len(matrix), threads + 1).astype(int)
        return np.concatenate(list(pool.map(lambda pair: score(matrix[slice(*pair)]), pairwise(edges))))

    return run


def opset_5(given: Inputs, threads: int) -> Score:
    """The operator TreeEnsemble, which replaces TreeEnsembleClassifier from ai.onnx.ml 5 on."""
    from onnx import TensorProto, helper, numpy_helper

    trees, root = given.trees, given.trees.root_of_node
    is_leaf = trees.left < 0
    number = np.cumsum(~is_leaf) - 1
    leaf_number = np.cumsum(is_leaf) - 1
    weight, category = np.zeros(len(trees.tree), np.float32), np.zeros(len(trees.tree), np.int64)
    weight[trees.leaf], category[trees.leaf] = trees.weight, trees.category
    nodes = np.flatnonzero(~is_leaf)
    true, false = (trees.left + root)[nodes], (trees.right + root)[nodes]

    def position(child: Array) -> list[int]:
        return np.where(is_leaf[child], leaf_number[child], number[child]).tolist()  # type: ignore[no-any-return]

    node = helper.make_node(
        "TreeEnsemble",
        [INPUT],
        [OUTPUT],
        domain="ai.onnx.ml",
        n_targets=len(trees.base),
        aggregate_function=1,
        post_transform=2,  # the softmax in ONNX Runtime's own numbers; in the specification it is 1
        tree_roots=number[trees.roots].tolist(),
        nodes_featureids=trees.feature[nodes].tolist(),
        nodes_splits=numpy_helper.from_array(trees.threshold[nodes].astype(np.float32)),
        nodes_modes=numpy_helper.from_array(np.ones(len(nodes), np.uint8)),
        nodes_truenodeids=position(true),
        nodes_falsenodeids=position(false),
        nodes_trueleafs=is_leaf[true].astype(int).tolist(),
        nodes_falseleafs=is_leaf[false].astype(int).tolist(),
        nodes_missing_value_tracks_true=trees.missing_left[nodes].astype(int).tolist(),
        leaf_targetids=category[is_leaf].tolist(),
        leaf_weights=numpy_helper.from_array(weight[is_leaf]),
    )
    shape = [None, given.matrix.shape[1]]
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, len(trees.base)])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 5)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return plain_onnx(replace(given, onnx=model.SerializeToString()), threads)


def booster(given: Inputs, threads: int) -> xgboost.Booster:
    found = xgboost.Booster(model_file=given.booster)
    found.set_param({"nthread": threads})
    return found


def xgboost_in_place(given: Inputs, threads: int) -> Score:
    return booster(given, threads).inplace_predict


def xgboost_matrix(given: Inputs, threads: int) -> Score:
    scores = booster(given, threads)
    return lambda rows: scores.predict(xgboost.DMatrix(rows, nthread=threads))


def treelite_model(given: Inputs) -> Any:
    return importlib.import_module("treelite.frontend").load_xgboost_model(str(given.booster))


def treelite_interpreted(given: Inputs, threads: int) -> Score:
    model, gtil = treelite_model(given), importlib.import_module("treelite.gtil")
    return lambda rows: gtil.predict(model, rows, nthread=threads).reshape(len(rows), -1)


def treelite_compiled(given: Inputs, threads: int) -> Score:
    """C from the trees, compiled by gcc: minutes for large models, and a model that is code."""
    tl2cgen = importlib.import_module("tl2cgen")
    library = Path(tempfile.gettempdir()) / f"trees-{given.booster.stat().st_mtime_ns}.so"
    if not library.exists():
        print("compiling the trees …", flush=True)
        tl2cgen.export_lib(
            treelite_model(given), toolchain="gcc", libpath=library, params={"parallel_comp": 16}, nthread=2
        )
    predictor = tl2cgen.Predictor(library, nthread=threads)
    return lambda rows: predictor.predict(tl2cgen.DMatrix(rows)).reshape(len(rows), -1)


@dataclass(frozen=True)
class Table:
    """All nodes as columns: a leaf leads to itself, so every row takes as many steps as its tree is deep."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    weight: Array
    category: Array
    """[trees]"""
    roots: Array
    depth: Array
    """[trees]"""


def table_of(trees: TreeArrays) -> Table:
    itself, is_leaf = np.arange(len(trees.tree)), trees.left < 0
    left = np.where(is_leaf, itself, trees.left + trees.root_of_node)
    right = np.where(is_leaf, itself, trees.right + trees.root_of_node)
    weight, level = np.zeros(len(itself), np.float32), np.zeros(len(itself), np.int32)
    weight[trees.leaf] = trees.weight
    category = np.zeros(len(itself), np.int32)
    category[trees.leaf] = trees.category
    # Children come after their parents.
    for node in np.flatnonzero(~is_leaf):
        level[left[node]] = level[right[node]] = level[node] + 1
    return Table(
        feature=np.where(is_leaf, 0, trees.feature).astype(np.int32),
        threshold=trees.threshold.astype(np.float32),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        missing_left=trees.missing_left.astype(np.bool_),
        weight=weight,
        category=np.maximum.reduceat(category, trees.roots),
        roots=trees.roots.astype(np.int32),
        depth=np.maximum.reduceat(level, trees.roots),
    )


def softmax(scores: Matrix) -> Matrix:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def numpy_table(given: Inputs, threads: int) -> Score:
    """All rows take one step of one tree at a time."""
    table, labels = table_of(given.trees), len(given.trees.base)

    def run(matrix: Matrix) -> Matrix:
        scores = np.zeros((len(matrix), labels), np.float32)
        rows, missing = np.arange(len(matrix)), np.isnan(matrix)
        for root, depth, category in zip(table.roots, table.depth, table.category, strict=True):
            node = np.full(len(matrix), root)
            for _ in range(depth):
                feature = table.feature[node]
                goes_left = matrix[rows, feature] < table.threshold[node]
                goes_left |= missing[rows, feature] & table.missing_left[node]
                node = np.where(goes_left, table.left[node], table.right[node])
            scores[:, category] += table.weight[node]
        return softmax(scores)

    return run


def numba_table(given: Inputs, threads: int) -> Score:
    """The same with LOCKSTEP rows at a time, compiled: no branch depends on a value, so none is predicted wrongly."""
    numba = importlib.import_module("numba")
    table, labels = table_of(given.trees), len(given.trees.base)

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def add_up(matrix: Array, scores: Array, columns: Any) -> None:
        feature, threshold, left, right, missing_left, weight, category, roots, depth = columns
        node = np.empty(LOCKSTEP, np.int32)
        for start in range(0, len(matrix), LOCKSTEP):
            rows = min(LOCKSTEP, len(matrix) - start)
            for tree in range(len(roots)):
                node[:rows] = roots[tree]
                for _ in range(depth[tree]):
                    for row in range(rows):
                        at = node[row]
                        value = matrix[start + row, feature[at]]
                        goes_left = (value < threshold[at]) | (np.isnan(value) & missing_left[at])
                        node[row] = left[at] if goes_left else right[at]
                for row in range(rows):
                    scores[start + row, category[tree]] += weight[node[row]]

    columns = tuple(getattr(table, item.name) for item in fields(Table))

    def run(matrix: Matrix) -> Matrix:
        scores = np.zeros((len(matrix), labels), np.float32)
        add_up(np.ascontiguousarray(matrix), scores, columns)
        return softmax(scores)

    run(given.matrix[:1])
    return run


def sorted_rows(given: Inputs, threads: int, make: Callable[[Inputs, int], Score]) -> Score:
    """Rows that resemble each other one after the other, as `Artifact.predict` has them."""
    score, keys = make(given, threads), list(champion(given.folder).sort_features)

    def run(matrix: Matrix) -> Matrix:
        order = np.lexsort(matrix.T[keys])
        probabilities = np.empty((len(matrix), len(given.trees.base)), np.float32)
        probabilities[order] = score(matrix[order])
        return probabilities

    return run


_OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

ENGINES: dict[str, Engine] = {
    PLAIN: Engine(plain_onnx),
    OURS: Engine(ours),
    **{f"{PLAIN}, {rows} rows at once": Engine(partial(in_batches, rows=rows)) for rows in (64, 128, 512, 4096)},
    f"{PLAIN}, no graph optimisation": Engine(partial(plain_onnx, graph_optimization_level=_OFF)),
    f"{PLAIN}, denormals as zero": Engine(partial(plain_onnx, entries={"session.set_denormal_as_zero": "1"})),
    f"{PLAIN}, no spinning": Engine(partial(plain_onnx, entries={"session.intra_op.allow_spinning": "0"}), (2,)),
    f"{PLAIN}, TreeEnsemble of opset 5": Engine(opset_5),
    f"{PLAIN}, rows shared out to threads": Engine(partial(shared_out, make=plain_onnx), (2,)),
    "ours, rows shared out to threads": Engine(partial(shared_out, make=ours), (2,)),
    "XGBoost, inplace_predict": Engine(xgboost_in_place),
    "XGBoost, inplace_predict, rows sorted": Engine(partial(sorted_rows, make=xgboost_in_place)),
    "XGBoost, DMatrix": Engine(xgboost_matrix),
    "Treelite, interpreted (GTIL)": Engine(treelite_interpreted, slow=True),
    "Treelite, compiled (TL2cgen)": Engine(treelite_compiled),
    "table in numpy": Engine(numpy_table, (1,), slow=True),
    "table in Numba": Engine(numba_table, (1,)),
    "table in Numba, rows shared out": Engine(partial(shared_out, make=numba_table), (2,)),
}

if __name__ == "__main__":
    main()
