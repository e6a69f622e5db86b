"""Tree ensembles as ONNX, written from the trees' own arrays.

The converters that exist take 15 s for the notebook's forest and its 37 MB; this is the one operator they would write,
with every split kept exact. `check_parity` proves it on real rows for every model.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from nightprice.errors import NightpriceError
from registry.trees import TreeArrays
from transforms.encode import Matrix

INPUT, OUTPUT = "features", "probabilities"
PARITY = 1e-5
# Old enough for every ONNX Runtime of the last years, new enough for all that is used.
_OPSET, _ML_OPSET, _IR_VERSION = 17, 3, 8

Array = npt.NDArray[Any]


class ExportError(NightpriceError):
    """An exported model that does not compute what its estimator computes."""


def to_onnx(trees: TreeArrays, *, features: int, mode: str, categories: int, post_transform: str = "NONE") -> bytes:
    """One TreeEnsembleClassifier: float32 [n, features] `features` in, float32 [n, k] `probabilities` out.

    `mode` is how a split sends a value left: BRANCH_LT (below the threshold, XGBoost) or BRANCH_LEQ (scikit-learn).
    """
    node_of_tree = np.arange(len(trees.tree)) - trees.root_of_node
    is_leaf = trees.left < 0
    attributes: dict[str, Any] = {
        "nodes_treeids": trees.tree.tolist(),
        "nodes_nodeids": node_of_tree.tolist(),
        "nodes_featureids": np.where(is_leaf, 0, trees.feature).tolist(),
        "nodes_values": np.where(is_leaf, 0, trees.threshold).astype(np.float32).tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", mode).tolist(),
        "nodes_truenodeids": np.where(is_leaf, 0, trees.left).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, trees.right).tolist(),
        "nodes_missing_value_tracks_true": np.where(is_leaf, 0, trees.missing_left).astype(int).tolist(),
        "class_treeids": trees.tree[trees.leaf].tolist(),
        "class_nodeids": node_of_tree[trees.leaf].tolist(),
        "class_ids": trees.category.tolist(),
        "class_weights": trees.weight.astype(np.float32).tolist(),
        "classlabels_int64s": list(range(categories)),
        "post_transform": post_transform,
    }
    node = helper.make_node("TreeEnsembleClassifier", [INPUT], ["category", OUTPUT], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "nightprice",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, categories])],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="nightprice")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def with_missing(matrix: Matrix, seed: int = 0) -> Matrix:
    """Rows to check a model on, float32 [2n, features]: as they are, and again with every fifth value missing."""
    holes = np.random.default_rng(seed).random(matrix.shape) < 0.2
    return np.concatenate([matrix, np.where(holes, np.float32(np.nan), matrix)])


def check_parity(model: bytes, rows: Matrix, expected: Array, tolerance: float = PARITY) -> Matrix:
    """The probabilities that ONNX Runtime computes for the rows, float32 [n, k].

    Raises ExportError if any is further than `tolerance` from what the estimator computed.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    computed: Matrix = session.run([OUTPUT], {INPUT: rows})[0]
    difference = np.abs(computed.astype(np.float64) - expected).max(axis=1)
    # A NaN counts as the largest difference.
    if not (difference <= tolerance).all():
        worst = int(np.nan_to_num(difference, nan=np.inf).argmax())
        raise ExportError(
            f"The exported model differs from the trained one: {computed[worst].round(6).tolist()} instead of "
            f"{np.asarray(expected)[worst].round(6).tolist()}, more than the {tolerance:g} allowed. Nothing was "
            "published. "
            "Report it with the versions of onnx, onnxruntime and the estimator's library."
        )
    return computed
