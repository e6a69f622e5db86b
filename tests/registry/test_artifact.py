"""A model folder scores as the estimator did, or it is refused with one sentence."""

import dataclasses
import json
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from typing import Any

import numpy as np
import pytest

from registry import artifact as format_of_models
from registry.artifact import FORMAT, SCORING_FILES, SORT_FROM_ROWS, artifact_of, load_artifact, write_artifact
from registry.errors import ArtifactError
from tests.support.tiny_model import FIRST, golden_rows, tiny_artifact, tiny_manifest, tiny_onnx, tiny_probabilities
from transforms.contract import Bands, Classes
from transforms.listings import CONTRACT

FILES = ["manifest.json", "model.onnx", "golden.json", "report.html"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_artifact(tmp_path / "model")


def test_a_written_model_scores_as_its_estimator_with_and_without_missing_values(folder: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (17, 4)).astype(np.float32)
    model = load_artifact(folder)
    assert np.isnan(golden_rows()).any()
    np.testing.assert_allclose(model.predict(golden_rows()), tiny_probabilities(golden_rows(), weights), atol=1e-6)
    assert model.predict(golden_rows()).dtype == np.float32


def test_a_model_that_travelled_is_checked_and_scores_where_its_folder_is_not(folder: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in SCORING_FILES}
    elsewhere = Path("/of/another/machine")

    assert (artifact_of(files, elsewhere).predict(golden_rows()) == load_artifact(folder).predict(golden_rows())).all()
    with pytest.raises(ArtifactError, match=r"/of/another/machine: model\.onnx has changed"):
        artifact_of(files | {"model.onnx": b"another"}, elsewhere)


def test_a_model_knows_who_it_is(folder: Path) -> None:
    model = load_artifact(folder, threads=2)
    assert (model.ref, model.labels, model.label) == (
        f"listing-price@{FIRST}",
        ("Low", "Mid", "High", "Lux"),
        CONTRACT.label,
    )
    assert (model.contract, model.features) == (CONTRACT.ref, CONTRACT.features)
    assert model.vocabulary["neighbourhood"]["Brooklyn"] == 4
    assert model.manifest["format"] == FORMAT == 2
    np.testing.assert_array_equal(model.golden.features, golden_rows())


@pytest.mark.parametrize("label", [Bands((1.0, 2.0, 3.0), ("a", "b", "c", "d")), Classes(("a", "b", "c", "d"), True)])
def test_any_label_travels(tmp_path: Path, label: Bands | Classes) -> None:
    model = load_artifact(tiny_artifact(tmp_path / "model", label=label.as_json()))
    assert (model.label, model.labels) == (label, ("a", "b", "c", "d"))


def test_a_file_of_the_model_is_read_on_demand(folder: Path) -> None:
    model = load_artifact(folder)
    assert (model.file("report.html"), model.file("none")) == (b"<p>report</p>", None)
    (folder / "report.html").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=r"report\.html has changed since"):
        model.file("report.html")
    (folder / "report.html").unlink()
    with pytest.raises(ArtifactError, match=r"report\.html is missing"):
        model.file("report.html")


@pytest.mark.parametrize(
    "importance", [{}, {"room_type": 1.0}, {"beds": 0.5, "latitude": 0.3, "tv": 0.0, "other": 9.0}]
)
def test_a_row_has_the_same_bits_in_any_batch_and_place(tmp_path: Path, importance: dict[str, float]) -> None:
    model = load_artifact(tiny_artifact(tmp_path / "model", importance=importance))
    random = np.random.default_rng(3)
    rows = random.integers(0, 3, (3 * SORT_FROM_ROWS, 17)).astype(np.float32)
    rows[random.random(rows.shape) < 0.2] = np.nan
    alone = np.concatenate([model.predict(row[np.newaxis]) for row in rows])

    for batch in (2, 64, 129, SORT_FROM_ROWS - 1, SORT_FROM_ROWS, SORT_FROM_ROWS + 1, len(rows)):
        together = [model.predict(rows[start : start + batch]) for start in range(0, len(rows), batch)]
        assert np.array_equal(np.concatenate(together), alone), f"batches of {batch} rows differ"
    places = random.permutation(len(rows))
    assert np.array_equal(model.predict(rows[places]), alone[places])


def test_many_rows_are_scored_sorted_by_what_matters_most(folder: Path) -> None:
    class Session:
        """Remembers the rows that it scores."""

        def get_inputs(self) -> Any:
            return session.get_inputs()

        def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
            (self.rows,) = inputs.values()
            return session.run(names, inputs)

    model = load_artifact(folder)
    session, seen = model.session, Session()
    model = dataclasses.replace(model, session=seen)
    assert [model.features[position] for position in model.sort_features] == ["accommodates", "bathrooms", "room_type"]

    rows = np.random.default_rng(3).integers(0, 3, (SORT_FROM_ROWS, 17)).astype(np.float32)
    model.predict(rows)
    room_types = seen.rows[:, model.features.index("room_type")]
    assert (np.diff(room_types) >= 0).all()
    model.predict(rows[:-1])
    assert np.array_equal(seen.rows, rows[:-1])


def test_no_rows_have_no_probabilities(folder: Path) -> None:
    assert load_artifact(folder).predict(np.empty((0, 17), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("shape", [(17,), (2, 16), (1, 2, 17)])
def test_another_shape_is_an_error(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[n, 17\] is needed"):
        load_artifact(folder).predict(np.zeros(shape, np.float32))


def test_the_manifest_has_the_sha256_of_every_file(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(manifest["sha256"]) == sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(
        ArtifactError, match=rf"model: {name} has changed since the model was written\. Restore the file"
    ):
        load_artifact(folder)


def test_swapped_labels_are_seen(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(
        text.replace('"Low"', '"X"').replace('"Lux"', '"Low"').replace('"X"', '"Lux"')
    )
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed"):
        load_artifact(folder)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=rf"model: {name} is missing\. Restore the file, or use another version\."):
        load_artifact(folder)


def test_a_folder_without_a_manifest_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a model: it has no manifest\.json\. Point to a folder"):
        load_artifact(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_manifest_that_is_no_object_is_named(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed"):
        load_artifact(folder)


def test_the_manifest_of_something_else_is_no_model(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": "parquet"}')
    with pytest.raises(ArtifactError, match="has no format number, so this is not a model of nightprice"):
        load_artifact(folder)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(format_of_models, "FORMAT", FORMAT + 1)
        folder = tiny_artifact(tmp_path / "model")
    with pytest.raises(
        ArtifactError,
        match=rf"has the model format {FORMAT + 1}, but this nightprice reads formats up to {FORMAT}\. Upgrade",
    ):
        load_artifact(folder)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another version": ({"version": 2}, 'under version 1 of the contract "listing-price"; this is version 2'),
    "another name": ({"name": "trip"}, 'under the contract "listing-price"; this is contract "trip"'),
    "other fields": (
        {"fields": CONTRACT.fields[::-1]},
        "under another table of fields of the contract",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_model_of_another_contract_is_refused(folder: Path, case: str) -> None:
    change, problem = OTHERS[case]
    with pytest.raises(ArtifactError, match=f"@{FIRST} was trained {problem}.*. Use a model of this contract"):
        load_artifact(folder).require(dataclasses.replace(CONTRACT, **change))


def test_a_model_of_the_contract_is_not_refused(folder: Path) -> None:
    load_artifact(folder).require(dataclasses.replace(CONTRACT, label=Bands((1.0,), ("a", "b"))))


@pytest.mark.parametrize("entry", [{"features": list(CONTRACT.features[::-1])}, {"vocabulary": {}}])
def test_other_features_are_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    model = load_artifact(tiny_artifact(tmp_path / "model", **entry))
    with pytest.raises(ArtifactError, match="was trained on other features than the contract"):
        model.require(CONTRACT)


@pytest.mark.parametrize("shift", [2e-5, float("nan")])
def test_other_probabilities_than_the_golden_ones_are_refused(tmp_path: Path, shift: float) -> None:
    with pytest.raises(ArtifactError, match="gives the golden rows other probabilities than the trained estimator"):
        load_artifact(tiny_artifact(tmp_path / "model", golden_shift=shift))


def test_the_tolerance_is_not_zero(tmp_path: Path) -> None:
    assert load_artifact(tiny_artifact(tmp_path / "model", golden_shift=5e-6)).version == FIRST


def _write(folder: Path, onnx: bytes, **manifest: Any) -> Path:
    golden = np.full((5, 4), 0.25, np.float32)
    whole = {**tiny_manifest(), **manifest}
    write_artifact(
        folder, manifest=whole, onnx=onnx, golden_features=golden_rows(), golden_probabilities=golden, files={}
    )
    return folder


@pytest.mark.parametrize(
    ("onnx", "problem"),
    [
        (b"no model", r"model\.onnx is refused: it is not an ONNX file"),
        (tiny_onnx(np.zeros((5, 4), np.float32)), r"model\.onnx can't score the golden rows"),
        (
            tiny_onnx(np.zeros((17, 3), np.float32)),
            r"model\.onnx gives \[5, 3\] probabilities, golden\.json has \[5, 4\], and 4 labels are named",
        ),
    ],
)
def test_a_model_that_can_not_score_is_refused(tmp_path: Path, onnx: bytes, problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        load_artifact(_write(tmp_path / "model", onnx))


def test_a_model_folder_is_never_overwritten(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ArtifactError, match="is not empty"):
        tiny_artifact(folder, seed=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"metrics": {"roc_auc": float("nan")}}, "contains a value that cannot be serialized to JSON"),
        ({"settings": {1, 2}}, "contains a value that cannot be serialized to JSON"),
        ({"label": {"kind": "bands", "bins": [1], "labels": ["a"], "minimum": None}}, "the label in .* can't be read"),
        ({"contract": {"name": "listing-price", "version": 1}}, r"incomplete: contract\.digest"),
    ],
)
def test_a_manifest_that_nobody_could_read_is_not_written(tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        tiny_artifact(tmp_path / "model", **entry)
    assert not (tmp_path / "model").exists()


def test_an_incomplete_manifest_is_not_written(tmp_path: Path) -> None:
    manifest = {key: value for key, value in tiny_manifest().items() if key != "vocabulary"}
    golden = golden_rows()[:, :4]
    with pytest.raises(ArtifactError, match="incomplete: vocabulary"):
        write_artifact(
            tmp_path / "x", manifest=manifest, onnx=b"", golden_features=golden, golden_probabilities=golden, files={}
        )


def test_a_file_can_not_leave_its_folder(tmp_path: Path) -> None:
    golden = golden_rows()[:, :4]
    with pytest.raises(ArtifactError, match=r'is wrong: sha256.*"\.\./x" is not of the form'):
        write_artifact(
            tmp_path / "m",
            manifest=tiny_manifest(),
            onnx=b"",
            golden_features=golden,
            golden_probabilities=golden,
            files={"../x": b""},
        )


def test_a_full_disk_is_said_and_leaves_no_model(tmp_path: Path) -> None:
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (1500, hard))  # the model is smaller, its manifest is not
    try:
        with pytest.raises(
            ArtifactError, match=r"model can't be written \(File too large\)\. Check its rights and the space left"
        ):
            tiny_artifact(tmp_path / "model")
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path / "model")
