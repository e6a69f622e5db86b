"""What an ONNX file may contain: one ensemble of trees, as `pipeline.train.onnx_export` writes it.

ONNX Runtime would run any operator, reserve what a file says it needs, follow the names of other files, and walk trees
without end to their depth. The few parts of the format that matter here are declared to protobuf; the package onnx
belongs to training.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from registry.trees import Array, check_structure, root_of_node

OPERATOR = ("ai.onnx.ml", "TreeEnsembleClassifier")
ATTRIBUTES = sorted(
    [
        "nodes_treeids",
        "nodes_nodeids",
        "nodes_featureids",
        "nodes_values",
        "nodes_modes",
        "nodes_truenodeids",
        "nodes_falsenodeids",
        "nodes_missing_value_tracks_true",
        "class_treeids",
        "class_nodeids",
        "class_ids",
        "class_weights",
        "classlabels_int64s",
        "post_transform",
    ]
)

_Field = descriptor_pb2.FieldDescriptorProto
# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto: name, number, type (or a message), repeated.
_MESSAGES: dict[str, list[tuple[str, int, int | str, bool]]] = {
    "Attribute": [("name", 1, _Field.TYPE_STRING, False), ("ints", 8, _Field.TYPE_INT64, True)],
    "Node": [
        ("op_type", 4, _Field.TYPE_STRING, False),
        ("attribute", 5, "Attribute", True),
        ("domain", 7, _Field.TYPE_STRING, False),
    ],
    "Graph": [
        ("node", 1, "Node", True),
        ("initializer", 5, _Field.TYPE_BYTES, True),
        ("sparse_initializer", 15, _Field.TYPE_BYTES, True),
    ],
    "Model": [
        ("graph", 7, "Graph", False),
        ("training_info", 20, _Field.TYPE_BYTES, True),
        ("functions", 25, _Field.TYPE_BYTES, True),
    ],
}


def check_model(content: bytes, features: int, labels: int) -> None:
    """Raise ValueError, with half a sentence, for a file that is not one ensemble of trees from so many features to so
    many labels.
    """
    try:
        model = _model_type().FromString(content)
    except DecodeError as error:
        raise ValueError("it is not an ONNX file") from error
    graph = model.graph
    if graph.initializer or graph.sparse_initializer or model.training_info or model.functions:
        raise ValueError("it contains more than one operator: constants, functions or training")
    names = [(node.domain, node.op_type) for node in graph.node]
    if names != [OPERATOR]:
        listed = ", ".join(name for _, name in names[:5]) or "none"
        raise ValueError(f"its operators are {listed}, not one {OPERATOR[1]}")
    values = _integers(graph.node[0].attribute)
    if len(values["classlabels_int64s"]) > labels:
        raise ValueError(f"it has {len(values['classlabels_int64s'])} labels instead of {labels}")
    _check_trees(values, features)


def _integers(attributes: Any) -> Mapping[str, Array]:
    """The whole numbers of every attribute; none for those that have others."""
    names = [item.name for item in attributes]
    if sorted(names) != ATTRIBUTES:
        strange = sorted(set(names) ^ set(ATTRIBUTES)) or names
        raise ValueError(f"its operator has other attributes than training writes, as for {strange[0]}")
    return {item.name: np.array(item.ints, np.int64) for item in attributes}


def _check_trees(values: Mapping[str, Array], features: int) -> None:
    tree, true, false = (values[f"nodes_{name}"] for name in ("treeids", "truenodeids", "falsenodeids"))
    if len(true) != len(false):
        raise ValueError("its nodes are incomplete")
    is_leaf = (true == 0) & (false == 0)
    check_structure(
        tree, values["nodes_featureids"], np.where(is_leaf, -1, true), np.where(is_leaf, -1, false), features
    )
    if not np.array_equal(values["nodes_nodeids"], np.arange(len(tree)) - root_of_node(tree)):
        raise ValueError("its nodes are not in order")


@cache
def _model_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="onnx_model.proto", package="onnx_model", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(
                name=field, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            )
            if isinstance(kind, str):
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".onnx_model.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx_model.Model"))
