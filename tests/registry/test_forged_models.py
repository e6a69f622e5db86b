"""Whoever can write into a registry can write right hashes for anything: nothing is believed before it is checked."""

import errno
import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.train.onnx_export import to_onnx
from registry import trees
from registry.artifact import load_artifact
from registry.errors import ArtifactError
from registry.registry import Registry
from registry.trees import MOST_LEVELS, TreeArrays
from tests.support.forged import REMOVED, forge
from tests.support.format1 import old_model
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, tiny_artifact, tiny_onnx

FEATURES, LABELS = 17, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_artifact(tmp_path / "model")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"), tmp_path / "cache")


def published(registry: Registry, tmp_path: Path, version: str) -> Path:
    """Publish a version and return its folder in the registry."""
    registry.publish(tiny_artifact(tmp_path / version, version), NAME)
    return Path(registry.uri) / NAME / "versions" / version


# The manifest


def test_a_forged_manifest_that_is_right_is_accepted(folder: Path) -> None:
    assert load_artifact(forge(folder, notes=["copied"])).manifest["notes"] == ["copied"]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"created": "the day before"}, "wrong: created: Invalid isoformat"),
        ({"created": 1767225600}, "wrong: created"),
        ({"created": "2026-02-30"}, "wrong: created: day is out of range"),
        ({"name": "../../x"}, r'wrong: name: "\.\./\.\./x" is not of the form'),
        ({"name": "a\nb"}, "wrong: name"),
        ({"version": "../1"}, "wrong: version"),
        ({"version": 20260101}, "wrong: version"),
        ({"estimator": ["xgboost"]}, "wrong: estimator"),
        ({"metrics": {"accuracy": "high"}}, "wrong: metrics.accuracy"),
        ({"metrics": [0.7]}, "wrong: metrics"),
        ({"features": [1, 2]}, "wrong: features"),
        ({"features": "beds"}, "wrong: features"),
        ({"vocabulary": {"room_type": {"Castle": 10**400}}}, "wrong: vocabulary.room_type.Castle"),
        ({"vocabulary": {"room_type": {"Castle": -1}}}, "wrong: vocabulary.room_type.Castle"),
        ({"vocabulary": {"room_type": {"Castle": 1.5}}}, "wrong: vocabulary.room_type.Castle"),
        ({"contract": {"name": "x", "version": "1", "digest": ""}}, "wrong: contract.version"),
        ({"contract": "listing-price"}, "wrong: contract"),
        ({"label": {"kind": "bands", "bins": [10**400], "labels": ["a", "b"], "minimum": None}}, "label"),
        ({"label": {"kind": "rings", "labels": ["a", "b"]}}, "wrong: label.kind"),
        ({"label": {"kind": "classes", "labels": [1, 2], "ordered": True}}, "wrong: label.labels"),
        ({"label": {"kind": "classes", "labels": ["a", "b"]}}, "label in manifest.json can't be read"),
        ({"dataset": {"uri": "data", "version": "1", "rows": [[1]]}}, "wrong: dataset.rows"),
        ({"sizes": {"model.onnx": -1}}, "wrong: sizes.model.onnx"),
        ({"importance": {"beds": None}}, "wrong: importance.beds"),
        ({"libraries": ["numpy"]}, "wrong: libraries"),
        ({"format": True}, "incomplete: contract_version"),
        ({"metrics": REMOVED}, "incomplete: metrics"),
    ],
    ids=str,
)
def test_an_entry_of_another_kind_is_refused(folder: Path, entries: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        load_artifact(forge(folder, **entries))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 150_000, '{"format": 2, "x": ' + "[" * 60 + "]" * 60 + "}", '{"format": NaN}']
)
def test_a_manifest_that_no_function_could_follow_has_changed(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed"):
        load_artifact(folder)


def test_a_deep_entry_is_refused_though_its_hash_is_right(folder: Path) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed"):
        load_artifact(forge(folder, settings={"x": deep}))


@pytest.mark.parametrize("pricing", [[1], 7, None, {"bins": [10**400], "labels": ["a", "b"], "minimum": 1}])
def test_a_manifest_of_format_1_is_checked_too(tmp_path: Path, pricing: Any) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_artifact(old_model(tmp_path / "old", pricing=pricing))


# The names


def test_a_folder_copied_under_another_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    folder = published(registry, tmp_path, FIRST)
    folder.rename(folder.with_name(SECOND))

    for act in (
        lambda: registry.load(f"{NAME}@{SECOND}"),
        lambda: registry.manifest(f"{NAME}@{SECOND}"),
        lambda: registry.promote(NAME, SECOND, "champion", ""),
    ):
        with pytest.raises(ArtifactError, match=f"holds the model {NAME}@{FIRST}, not {NAME}@{SECOND}"):
            act()


def test_a_folder_copied_under_another_name_is_refused(registry: Registry, tmp_path: Path) -> None:
    published(registry, tmp_path, FIRST)
    (Path(registry.uri) / NAME).rename(Path(registry.uri) / "other")
    with pytest.raises(ArtifactError, match=f"holds the model {NAME}@{FIRST}, not other@{FIRST}"):
        registry.load(f"other@{FIRST}")


# One among others


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"{}", b"\xff\xfe", b'{"format": 2}', b'{"format": 1, "sha256": {}}']
)
def test_a_broken_version_is_marked_and_hides_no_other(registry: Registry, tmp_path: Path, content: bytes) -> None:
    published(registry, tmp_path, FIRST)
    published(registry, tmp_path, SECOND)
    (published(registry, tmp_path, THIRD) / "manifest.json").write_bytes(content)

    listed = registry.versions(NAME)

    assert [version["version"] for version in listed] == [SECOND, FIRST, THIRD]
    assert [THIRD in version.get("error", "") for version in listed] == [False, False, True]
    assert registry.resolve(f"{NAME}@latest") == (NAME, SECOND)
    assert registry.load(f"{NAME}@{FIRST}").version == FIRST


def test_of_broken_versions_alone_there_is_no_latest(registry: Registry, tmp_path: Path) -> None:
    (published(registry, tmp_path, FIRST) / "manifest.json").write_bytes(b"[]")
    assert "error" in registry.versions(NAME)[0]
    with pytest.raises(ArtifactError, match=FIRST):
        registry.resolve(f"{NAME}@latest")


def test_a_folder_that_can_be_no_version_is_passed_over(registry: Registry, tmp_path: Path) -> None:
    folder = published(registry, tmp_path, FIRST)
    for name in (".tmp", "x y", "latest"):
        folder.with_name(name).mkdir()
        (folder.with_name(name) / "manifest.json").write_text("{}")
    assert [version["version"] for version in registry.versions(NAME)] == [FIRST]
    with pytest.raises(Exception, match=f'no version "{SECOND}"'):
        registry.load(f"{NAME}@{SECOND}")


def test_versions_are_ordered_by_time_whatever_its_zone(registry: Registry, tmp_path: Path) -> None:
    for version, created in ((FIRST, "2026-01-01T23:00:00-05:00"), (SECOND, "2026-01-02T01:00:00")):
        registry.publish(tiny_artifact(tmp_path / version, version, created=created), NAME)
    assert [version["version"] for version in registry.versions(NAME)] == [FIRST, SECOND]


# The files


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.json", "report.html"])
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "link out", "folder", "circle"])
def test_what_is_not_a_regular_file_of_the_folder_is_refused(
    folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / name
    outside = folder.parent / "outside"
    path.rename(outside)
    monkeypatch.chdir(folder)  # a socket has a short path
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(name)
    elif kind == "link out":
        path.symlink_to(outside)
    elif kind == "circle":
        path.symlink_to(path)
    else:
        path.mkdir()
    with pytest.raises(ArtifactError, match=name):
        load_artifact(folder)


@pytest.mark.parametrize("kind", ["pipe", "circle", "no rights"])
def test_a_manifest_that_can_not_be_read_hides_no_other_version(
    registry: Registry, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(registry, tmp_path, FIRST)
    manifest = published(registry, tmp_path, SECOND) / "manifest.json"
    if kind == "no rights":
        refuse_to_open(manifest, monkeypatch)
    else:
        manifest.unlink()
        os.mkfifo(manifest) if kind == "pipe" else manifest.symlink_to(manifest)
    assert [(version["version"], "error" in version) for version in registry.versions(NAME)] == [
        (FIRST, False),
        (SECOND, True),
    ]


def refuse_to_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does; tests may run as root."""
    opened = os.open

    def refuse(target: Any, *arguments: Any, **options: Any) -> int:
        if str(target) == str(path.resolve()):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(target, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


def test_a_broken_version_is_named_once_to_a_service_that_asks_again(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(registry, tmp_path, FIRST)
    (published(registry, tmp_path, SECOND) / "manifest.json").write_text("[]")
    for _ in range(3):
        assert registry.resolve(f"{NAME}@latest") == (NAME, FIRST)
    assert [record.levelname for record in caplog.records if SECOND in record.getMessage()] == ["WARNING"]


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    (folder / "..data").mkdir()
    for name in ("manifest.json", "model.onnx", "golden.json", "report.html"):
        (folder / name).rename(folder / "..data" / name)
        (folder / name).symlink_to(f"..data/{name}")
    assert load_artifact(folder).version == FIRST


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.json", "report.html"])
def test_a_file_without_end_is_not_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 2**40)
    with pytest.raises(ArtifactError, match=rf"{name} has 1,099,511,627,776 bytes, and at most"):
        load_artifact(folder)


def test_sizes_are_those_of_the_manifest(folder: Path) -> None:
    sizes = json.loads((folder / "manifest.json").read_text())["sizes"]
    assert sizes == {name: (folder / name).stat().st_size for name in ("model.onnx", "golden.json", "report.html")}
    with open(folder / "report.html", "ab") as stream:
        stream.write(b" ")
    with pytest.raises(ArtifactError, match=rf"at most {sizes['report.html']} are expected"):
        load_artifact(folder)


def test_a_model_from_before_sizes_still_loads(folder: Path) -> None:
    assert load_artifact(forge(folder, sizes=REMOVED)).version == FIRST


@pytest.mark.parametrize(
    "golden",
    [
        b"[" * 200_000,
        b'{"features": [[1e999]], "probabilities": [[1]]}',
        b'{"features": [[%s]], "probabilities": [[1]]}' % (b"9" * 400),
        b'{"features": {}, "probabilities": null}',
        b"[]",
    ],
)
def test_golden_rows_that_are_none_are_refused(folder: Path, golden: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"golden\.json|golden rows"):
        load_artifact(forge(folder, {"golden.json": golden}))


# The model


def chain(levels: int) -> TreeArrays:
    """One tree whose branches all have a leaf and the next branch below them."""
    nodes = 2 * levels + 1
    branch = np.arange(nodes) % 2 == 0
    branch[-1] = False
    position = np.arange(nodes)
    leaf = position[~branch]
    return TreeArrays(
        tree=np.zeros(nodes, int),
        feature=np.zeros(nodes, int),
        threshold=np.zeros(nodes),
        left=np.where(branch, position + 1, -1),
        right=np.where(branch, position + 2, -1),
        missing_left=np.zeros(nodes, bool),
        leaf=leaf,
        category=np.zeros(len(leaf), int),
        weight=np.ones(len(leaf)),
    )


def exported(ensemble: TreeArrays, **options: Any) -> bytes:
    return to_onnx(ensemble, features=FEATURES, mode="BRANCH_LT", categories=LABELS, **options)


def graph_of(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "x",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, LABELS])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return content


def tiny_model() -> onnx.ModelProto:
    return onnx.load_from_string(tiny_onnx(np.zeros((FEATURES, LABELS), np.float32)))


def with_attribute(attribute: onnx.AttributeProto) -> bytes:
    """The tiny model with one more attribute."""
    model = tiny_model()
    model.graph.node[0].attribute.append(attribute)
    return bytes(model.SerializeToString())


def with_integers(name: str, change: Callable[[list[int]], list[int]]) -> bytes:
    """The tiny model with one of its attributes changed."""
    model = tiny_model()
    attribute = next(item for item in model.graph.node[0].attribute if item.name == name)
    integers = change(list(attribute.ints))
    del attribute.ints[:]
    attribute.ints.extend(integers)
    return bytes(model.SerializeToString())


def starting_with(*first: int) -> Callable[[list[int]], list[int]]:
    return lambda integers: [*first, *integers[len(first) :]]


def of_another_domain() -> bytes:
    model = tiny_model()
    model.graph.node[0].domain = "com.example"
    return bytes(model.SerializeToString())


def with_a_function() -> bytes:
    model = tiny_model()
    model.functions.append(helper.make_function("d", "F", ["x"], ["y"], [], [helper.make_opsetid("", 17)]))
    return bytes(model.SerializeToString())


def two_graphs_in_one() -> bytes:
    return bytes(tiny_model().SerializeToString()) + graph_of(helper.make_node("Identity", ["features"], ["x"]))


HUGE = TensorProto(data_type=TensorProto.DOUBLE, dims=[2**40], name="x")
CHANGES: dict[str, tuple[bytes, str]] = {
    "an attribute of another version": (
        with_attribute(helper.make_attribute("nodes_hitrates", [1.0])),
        "other attributes than training writes, as for nodes_hitrates",
    ),
    "an attribute with a tensor": (
        with_attribute(helper.make_attribute("nodes_values_as_tensor", HUGE)),
        "as for nodes_values_as_tensor",
    ),
    "an attribute twice": (with_attribute(helper.make_attribute("nodes_treeids", [0])), "other attributes than"),
    "a branch back": (with_integers("nodes_truenodeids", starting_with(0)), "leads out of its tree, or back"),
    "a branch out": (with_integers("nodes_truenodeids", starting_with(2**62)), "leads out of its tree, or back"),
    "a child of two": (with_integers("nodes_truenodeids", starting_with(2)), "a node has two parents"),
    "a feature that is none": (
        with_integers("nodes_featureids", starting_with(FEATURES)),
        "a branch looks at a feature that does not exist",
    ),
    "trees out of order": (with_integers("nodes_treeids", starting_with(99)), "its trees are not in order"),
    "nodes out of order": (with_integers("nodes_nodeids", starting_with(1)), "its nodes are not in order"),
    "fewer nodes": (with_integers("nodes_truenodeids", lambda integers: integers[:-1]), "its nodes are incomplete"),
    "many labels": (
        with_integers("classlabels_int64s", lambda integers: list(range(1_000_000))),
        "it has 1000000 labels instead of 4",
    ),
    "another operator of the name": (of_another_domain(), "its operators are TreeEnsembleClassifier"),
    "two graphs in one": (two_graphs_in_one(), "its operators are TreeEnsembleClassifier, Identity"),
    "a function": (with_a_function(), "functions"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_trees_as_training_writes_them_are_a_model(folder: Path, change: str) -> None:
    onnx_file, problem = CHANGES[change]
    with pytest.raises(ArtifactError, match=rf"model\.onnx is refused: .*{problem}"):
        load_artifact(forge(folder, {"model.onnx": onnx_file}))


def test_no_other_operator_runs(folder: Path) -> None:
    """A file of 100 bytes that would reserve 4 GB: ConstantOfShape, a Loop, or a long product."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**30])
    node = helper.make_node("ConstantOfShape", ["shape"], ["probabilities"])
    with pytest.raises(ArtifactError, match=r"model\.onnx is refused"):
        load_artifact(forge(folder, {"model.onnx": graph_of(node, initializers=(shape,))}))
    nodes = (helper.make_node("MatMul", ["a", "a"], ["b"]), helper.make_node("Softmax", ["b"], ["probabilities"]))
    with pytest.raises(ArtifactError, match="its operators are MatMul, Softmax"):
        load_artifact(forge(folder, {"model.onnx": graph_of(*nodes)}))


def test_no_other_file_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = TensorProto(data_type=TensorProto.FLOAT, dims=[FEATURES, LABELS], name="weights")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="secret")
    node = helper.make_node("MatMul", ["features", "weights"], ["probabilities"])
    monkeypatch.chdir(folder.parent)
    Path("secret").write_bytes(np.zeros((FEATURES, LABELS), np.float32).tobytes())
    content = graph_of(node, initializers=(weights,))
    with pytest.raises(ArtifactError, match=r"model\.onnx is refused: it contains more than one operator"):
        load_artifact(forge(folder, {"model.onnx": content}))


def test_a_file_of_another_format_is_none(folder: Path) -> None:
    """ONNX Runtime would take a file that says ORTM at its fifth byte for one of its own format."""
    model = bytes(tiny_model().SerializeToString())
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        load_artifact(forge(folder, {"model.onnx": b"\xfa\x01\x04\x00ORTM" + model}))


def test_trees_are_as_deep_as_learning_makes_them(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=f"a tree is deeper than {MOST_LEVELS} levels"):
        load_artifact(forge(folder, {"model.onnx": exported(chain(60_000))}))
    with pytest.raises(ArtifactError, match="other probabilities than the trained estimator"):
        load_artifact(forge(folder, {"model.onnx": exported(chain(MOST_LEVELS - 1), post_transform="SOFTMAX")}))


# The trees for explanations


def archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"left": [0, -1, -1]}, "leads out of its tree, or back"),
        ({"right": [9, -1, -1]}, "leads out of its tree, or back"),
        ({"right": [1, -1, -1]}, "two parents"),
        ({"feature": [-5, 0, 0]}, "feature that does not exist"),
        ({"tree": [0, 0]}, "incomplete"),
        ({"tree": [3, 1, 2]}, "not in order"),
    ],
)
def test_trees_that_are_none_are_refused(change: dict[str, Any], problem: str) -> None:
    whole = {**vars(chain(1)), **{name: np.array(value, np.int32) for name, value in change.items()}}
    with pytest.raises(ValueError, match=problem):
        TreeArrays.from_bytes(TreeArrays(**whole).to_bytes())


def test_trees_of_other_types_are_refused() -> None:
    arrays = {name: np.asarray(value, np.float64) for name, value in vars(chain(1)).items()}
    with pytest.raises(ValueError, match="tree has the type float64"):
        TreeArrays.from_bytes(archive(**arrays))


def test_trees_that_unpack_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_UNPACKED_BYTES", 2**20)
    with pytest.raises(ValueError, match="it unpacks to"):
        TreeArrays.from_bytes(archive(tree=np.zeros(2**20, np.int32)))
