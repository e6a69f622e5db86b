"""A model version as a folder of plain files: what is in it, how it is written, and when it may be used.

    manifest.json   everything about the model, with the size and sha256 of every file (`registry.manifest`)
    model.onnx      what scores, online and in batch: float32 [n, features] to probabilities float32 [n, labels]
    golden.json     a few feature vectors with the probabilities that the estimator gave them
    trees.npz       the trees for explanations, if the estimator has any that explain (`registry.trees`)
    …               the report, and the ids of the holdout rows if they were named

Nothing in it can run code: no pickle. No contract is needed to write, publish or load a model; whoever encodes records
for it calls `Artifact.require`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from nightprice.errors import ContractError, first_line
from nightprice.plain_json import parse_json
from registry import format1
from registry.errors import ArtifactError
from registry.files import MOST_FILE_BYTES, MOST_MANIFEST_BYTES, read_regular
from registry.manifest import ModelManifest, check_manifest
from registry.onnx_model import check_model
from transforms.contract import Contract, ContractRef, Label, label_from_json
from transforms.encode import Matrix, Vocabulary

# Raise it with every change that an older reader would misunderstand, and keep a reader of the format before.
FORMAT = 2
MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.json"
SCORING_FILES = (MANIFEST, MODEL, GOLDEN)
# How far a probability may be from the estimator's: measured are 8e-7 for XGBoost and 1.3e-6 for the forest.
TOLERANCE = 1e-5

# From so many rows on, scoring them sorted saves more than the sorting costs; these are the features with the largest
# importance, of which more change nothing (docs/decisions/scoring-engines.md).
SORT_FROM_ROWS = 512
SORT_FEATURES = 4

_TRAIN_AGAIN = "Train it again with this version of nightprice."


class Golden(NamedTuple):
    """Rows whose probabilities are known."""

    features: Matrix
    """float32 [k, features]"""
    probabilities: Matrix
    """float32 [k, labels], by the estimator itself"""


@dataclass(frozen=True, eq=False)
class Artifact:
    """A model that was checked and is ready to score. Safe to use from several threads.

    >>> model = load_artifact(model_folder)
    >>> model.ref, model.contract["name"], model.labels
    ('example@3', 'example', ('Low', 'Mid', 'High', 'Lux'))
    >>> model.predict(model.golden.features).shape == model.golden.probabilities.shape
    True
    """

    folder: Path
    """Where it was read, maybe on another machine."""
    manifest: ModelManifest
    label: Label
    """What it predicts, with the bins of its training."""
    golden: Golden = field(repr=False)
    session: onnxruntime.InferenceSession = field(repr=False)

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def version(self) -> str:
        return self.manifest["version"]

    @property
    def ref(self) -> str:
        """What names this model everywhere: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def contract(self) -> ContractRef:
        """The contract that it was trained under."""
        return self.manifest["contract"]

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of a feature vector, in order."""
        return tuple(self.manifest["features"])

    @property
    def vocabulary(self) -> Vocabulary:
        return self.manifest["vocabulary"]

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of `predict`; of bands and ordered classes, lowest first."""
        return self.label.labels

    @cached_property
    def sort_features(self) -> tuple[int, ...]:
        """The features by which many rows are sorted before they are scored, by position, the most important last."""
        importance = self.manifest.get("importance", {})
        positions = [position for position, name in enumerate(self.features) if importance.get(name, 0) > 0]
        return tuple(sorted(positions, key=lambda position: importance[self.features[position]])[-SORT_FEATURES:])

    def require(self, contract: Contract) -> None:
        """Raise ArtifactError if the model was trained under another contract: it would misread the records."""
        recorded = self.contract
        # A model of format 1 has no digest, but is held to the features.
        problem = contract.difference({**recorded, "digest": recorded["digest"] or contract.digest})
        if problem is None and (
            self.features != contract.features or not contract.coded.keys() <= self.vocabulary.keys()
        ):
            problem = f'on other features than the contract "{contract.name}" has'
        if problem:
            raise ArtifactError(
                f"{self.ref} was trained {problem}. Use a model of this contract, or set NIGHTPRICE_CONTRACT to the"
                " model's."
            )

    def file(self, name: str) -> bytes | None:
        """The content of another file of the model, or None if it was written without one of this name.

        Raises ArtifactError if the file is missing or has changed.
        """
        if name not in self.manifest["sha256"]:
            return None
        return read_file(self.folder, name, self.manifest, str(self.folder))

    def predict(self, matrix: Matrix) -> Matrix:
        """The probabilities float32 [n, labels] of feature vectors float32 [n, features]; missing values are NaN.

        Raises ValueError for another shape.
        """
        width = len(self.manifest["features"])
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise ValueError(f"A matrix [n, {width}] is needed, not one of shape {list(matrix.shape)}.")
        if not len(matrix):
            return np.empty((0, len(self.labels)), np.float32)
        if len(matrix) < SORT_FROM_ROWS or not self.sort_features:
            return self._score(matrix)
        # Rows that resemble each other take the same branches, which the processor then predicts: up to twice as fast.
        order = np.lexsort(matrix.T[list(self.sort_features)])
        scored = self._score(matrix[order])
        probabilities = np.empty_like(scored)
        probabilities[order] = scored
        return probabilities

    def _score(self, matrix: Matrix) -> Matrix:
        name = self.session.get_inputs()[0].name
        probabilities: Matrix = self.session.run(["probabilities"], {name: np.ascontiguousarray(matrix, np.float32)})[0]
        return probabilities


def write_artifact(
    folder: Path,
    *,
    manifest: Mapping[str, Any],
    onnx: bytes,
    golden_features: Matrix,
    golden_probabilities: Matrix,
    files: Mapping[str, bytes],
) -> None:
    """Write a model folder. The manifest is written last.

    `manifest` is a `registry.manifest.ModelDescription`: format, sizes and sha256 are added. `golden_features` float32
    [k, features] should include missing values; `golden_probabilities` float32 [k, labels] are the estimator's own.
    Raises ArtifactError if the folder is not empty, or the manifest is incomplete.

    >>> write_artifact(model_folder, manifest={}, onnx=b"", golden_features=[], golden_probabilities=[], files={})
    Traceback (most recent call last):
    registry.errors.ArtifactError: ...model is not empty. A model version is never overwritten: choose a new folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ArtifactError(f"{folder} is not empty. A model version is never overwritten: choose a new folder.")
    golden = {"features": _as_lists(golden_features), "probabilities": _as_lists(golden_probabilities)}
    contents = {MODEL: onnx, GOLDEN: json.dumps(golden).encode(), **files}
    whole = _add_checksums({**manifest, "format": FORMAT}, contents)
    _check_manifest(whole, str(folder))
    contents[MANIFEST] = json.dumps(whole, indent=1, ensure_ascii=False).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise ArtifactError(
            f"{folder} can't be written ({error.strerror}). Check its rights and the space left on its disk."
        ) from error


def load_artifact(folder: Path, threads: int = 1, where: str | None = None, ref: str | None = None) -> Artifact:
    """A model folder, ready to score with so many threads, after all checks: format, sha256, golden rows.

    `where` is what messages call the folder; `ref` is NAME@VERSION if it must be that one. Raises ArtifactError, which
    says what is wrong and what to do.

    >>> load_artifact(model_folder, threads=2).ref
    'example@3'
    """
    where = where or str(folder)
    content = _read(folder, MANIFEST, MOST_MANIFEST_BYTES, where)
    manifest = read_manifest(content, where, ref)
    contents = {name: read_file(folder, name, manifest, where) for name in (MODEL, GOLDEN)}
    for name in manifest["sha256"].keys() - {MANIFEST, *contents}:
        read_file(folder, name, manifest, where)
    return artifact_of({MANIFEST: content} | contents, folder, threads, where)


def read_file(folder: Path, name: str, manifest: ModelManifest, where: str) -> bytes:
    """The content of a file of a model that its manifest names, unchanged since it was written.

    Raises ArtifactError.
    """
    content = _read(folder, name, most_bytes(manifest, name), where)
    _check_contents(manifest, {name: content}, where)
    return content


def most_bytes(manifest: ModelManifest, name: str) -> int:
    """How large a file of a model may be."""
    most = MOST_MANIFEST_BYTES if name in (MANIFEST, GOLDEN) else MOST_FILE_BYTES
    return min(most, manifest.get("sizes", {}).get(name, most))


def artifact_of(files: Mapping[str, bytes], folder: Path, threads: int = 1, where: str | None = None) -> Artifact:
    """The same from the contents of files that were read elsewhere: SCORING_FILES at least."""
    where = where or str(folder)
    manifest = read_manifest(files[MANIFEST], where)
    _check_contents(manifest, files, where)
    label = label_from_json(manifest["label"])
    golden = _read_golden(files[GOLDEN], where)
    _check_model(files[MODEL], len(manifest["features"]), len(label.labels), where)
    session = _session(files[MODEL], threads, where)
    artifact = Artifact(folder, manifest, label, golden, session)
    _check_golden(artifact, where)
    return artifact


def read_manifest(content: bytes, where: str, ref: str | None = None) -> ModelManifest:
    """A manifest as today's format has it, of any format up to FORMAT, unchanged since it was written.

    Raises ArtifactError, also if it is that of another model than `ref`, if that is given.
    """
    try:
        manifest = parse_json(content)
    except ValueError as error:
        raise _changed(where, MANIFEST) from error
    if not isinstance(manifest, dict):
        raise _changed(where, MANIFEST)
    _check_format(manifest, where)
    # Of the original content, before it is translated.
    if manifest["sha256"].get(MANIFEST) != _manifest_digest(manifest):
        raise _changed(where, MANIFEST)
    if manifest["format"] == format1.FORMAT:
        manifest = _translated(manifest, where)
    checked = _check_manifest(manifest, where)
    found = f"{checked['name']}@{checked['version']}"
    if ref not in (None, found):
        raise ArtifactError(
            f"{where} holds the model {found}, not {ref}. Publish it under its own name, or use another version."
        )
    return checked


def _check_format(manifest: Mapping[str, Any], where: str) -> None:
    number = manifest.get("format")
    if not isinstance(number, int) or number < 1:
        raise ArtifactError(
            f"{where}: {MANIFEST} has no format number, so this is not a model of nightprice. Point to a folder that "
            "training wrote."
        )
    if number > FORMAT:
        raise ArtifactError(
            f"{where} has the model format {number}, but this nightprice reads formats up to {FORMAT}. "
            "Upgrade nightprice."
        )
    if not isinstance(manifest.get("sha256"), dict):
        raise _incomplete(where, ["sha256"])


def _translated(manifest: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return format1.translate(manifest)
    except (KeyError, TypeError) as error:
        raise _incomplete(where, [first_line(error).strip("'")]) from error


def _check_manifest(manifest: Any, where: str) -> ModelManifest:
    """Check that a manifest with checksums has what every reader relies on."""
    try:
        checked = check_manifest(manifest)
    except ValueError as error:
        raise ArtifactError(f"{where}: {MANIFEST} is {error}. {_TRAIN_AGAIN}") from error
    if not {MODEL, GOLDEN} <= checked["sha256"].keys():
        raise _incomplete(where, ["sha256"])
    try:
        label_from_json(checked["label"])
    except (KeyError, TypeError, ValueError, OverflowError, ContractError) as error:
        raise ArtifactError(
            f"{where}: the label in {MANIFEST} can't be read ({first_line(error)}). {_TRAIN_AGAIN}"
        ) from error
    return checked


def _check_contents(manifest: ModelManifest, contents: Mapping[str, bytes], where: str) -> None:
    for name, content in contents.items():
        if name != MANIFEST and hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
            raise _changed(where, name)


def _read_golden(content: bytes, where: str) -> Golden:
    try:
        rows = parse_json(content)
        return Golden(np.array(rows["features"], np.float32), np.array(rows["probabilities"], np.float32))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{where}: {GOLDEN} can't be read ({first_line(error)}). {_TRAIN_AGAIN}") from error


def _check_golden(artifact: Artifact, where: str) -> None:
    expected = artifact.golden.probabilities
    try:
        computed = artifact.predict(artifact.golden.features)
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise ArtifactError(
            f"{where}: {MODEL} can't score the golden rows ({first_line(error)}). {_TRAIN_AGAIN}"
        ) from error
    shape = (len(artifact.golden.features), len(artifact.labels))
    if computed.shape != shape or expected.shape != shape or not len(expected):
        raise ArtifactError(
            f"{where}: {MODEL} gives {list(computed.shape)} probabilities, {GOLDEN} has {list(expected.shape)}, and "
            f"{len(artifact.labels)} labels are named. {_TRAIN_AGAIN}"
        )
    # Not `max() > TOLERANCE`: a NaN must fail too.
    if not (np.abs(computed - expected) <= TOLERANCE).all():
        raise ArtifactError(
            f"{where}: {MODEL} gives the golden rows other probabilities than the trained estimator, by up to "
            f"{np.abs(computed - expected).max():.2g} (allowed {TOLERANCE:g}). {_TRAIN_AGAIN}"
        )


def _check_model(onnx: bytes, features: int, labels: int, where: str) -> None:
    try:
        check_model(onnx, features, labels)
    except ValueError as error:
        raise ArtifactError(f"{where}: {MODEL} is refused: {error}. {_TRAIN_AGAIN}") from error


def _session(onnx: bytes, threads: int, where: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Otherwise the file could be of ONNX Runtime's own format as well, which `check_model` does not read.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise ArtifactError(
            f"{where}: ONNX Runtime can't load {MODEL} ({first_line(error)}). {_TRAIN_AGAIN}"
        ) from error


def _read(folder: Path, name: str, most: int, where: str) -> bytes:
    try:
        return read_regular(folder, name, most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_file_error(where, name) from error
    except OSError as error:
        raise ArtifactError(
            f"{where}: {name} can't be read ({error.strerror}). Check its rights and its disk."
        ) from error


def missing_file_error(where: str, name: str) -> ArtifactError:
    """The error for a file that a model should have."""
    if name == MANIFEST:
        return ArtifactError(
            f"{where} is not a model: it has no {MANIFEST}. Point to a folder or version that training finished "
            "writing."
        )
    return ArtifactError(f"{where}: {name} is missing. Restore the file, or use another version.")


def _changed(where: str, name: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: {name} has changed since the model was written. Restore the file, or use another version."
    )


def _incomplete(where: str, missing: list[str]) -> ArtifactError:
    return ArtifactError(f"{where}: {MANIFEST} is incomplete: {', '.join(missing)}. {_TRAIN_AGAIN}")


def _add_checksums(manifest: dict[str, Any], contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest with the sha256 of every file and, so that no entry can change unnoticed, of itself without it."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sizes = {name: len(content) for name, content in contents.items()}
    # A round trip makes tuples lists, so that the manifest hashes now as it will when read.
    try:
        whole: dict[str, Any] = json.loads(json.dumps({**manifest, "sizes": sizes, "sha256": hashes}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"The manifest contains a value that cannot be serialized to JSON ({error}). Use plain numbers, texts or "
            "None."
        ) from error
    whole["sha256"][MANIFEST] = _manifest_digest(whole)
    return whole


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    hashes = {name: digest for name, digest in manifest["sha256"].items() if name != MANIFEST}
    return hashlib.sha256(json.dumps({**manifest, "sha256": hashes}, sort_keys=True).encode()).hexdigest()


def _as_lists(matrix: Matrix) -> list[list[float | None]]:
    """Rows of plain numbers, NaN as None: JSON has no NaN, and every float32 survives its shortest decimal form."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
