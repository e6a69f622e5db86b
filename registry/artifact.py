"""A model version as a folder of plain files: what is in it, how it is written, and when it may be used.

    manifest.json   everything about the model, and the sha256 of every file (format: see `MANIFEST_KEYS`)
    model.onnx      what scores, online and in batch: float32 [n, 17] to probabilities float32 [n, labels]
    golden.json     a few feature vectors with the probabilities that the estimator gave them
    …               the estimator's own safe format and the report, where there are any

Nothing in it can run code: no pickle.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nightprice.errors import ContractError
from registry.errors import ArtifactError
from transforms.contract import CONTRACT_VERSION, FEATURES, Pricing
from transforms.encode import Matrix, Vocabulary

# Raise it with every change that an older reader would misunderstand; see docs/decisions.
FORMAT = 1
MANIFEST = "manifest.json"
MODEL = "model.onnx"
GOLDEN = "golden.json"
SCORING_FILES = (MANIFEST, MODEL, GOLDEN)
# How far a probability may be from the estimator's: measured are 8e-7 for XGBoost and 1.3e-6 for the forest.
TOLERANCE = 1e-5

# What a manifest must hold to be used; training adds what people want to know.
MANIFEST_KEYS = (
    "name",
    "version",
    "created",
    "estimator",
    "features",
    "vocabulary",
    "pricing",
    "labels",
    "contract_version",
    "metrics",
)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TRAIN_AGAIN = "Train it again with this version of nightprice."


@dataclass(frozen=True, eq=False)
class Artifact:
    """A model that was checked and is ready to score. Safe to use from several threads."""

    folder: Path
    """Where it was read, maybe on another machine."""
    manifest: dict[str, Any]
    vocabulary: Vocabulary
    pricing: Pricing
    session: onnxruntime.InferenceSession = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def ref(self) -> str:
        """What names this model everywhere: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The price categories, lowest first: the columns of `predict`."""
        return self.pricing.labels

    def predict(self, matrix: Matrix) -> Matrix:
        """The probabilities float32 [n, labels] of feature vectors float32 [n, 17]; missing values are NaN.

        Raises ValueError for another shape.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(FEATURES):
            raise ValueError(f"A matrix [n, {len(FEATURES)}] is needed, not one of shape {list(matrix.shape)}.")
        if not len(matrix):
            return np.empty((0, len(self.labels)), np.float32)
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
    """Write a model folder; `manifest` needs no format and sha256, which are added. The manifest is written last.

    `golden_features` float32 [k, 17] should include missing values; `golden_probabilities` float32 [k, labels] are the
    estimator's own. Raises ArtifactError if the folder holds anything, or the manifest is incomplete.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ArtifactError(f"{folder} is not empty. A model version is never overwritten: name a new folder.")
    golden = {"features": _as_lists(golden_features), "probabilities": _as_lists(golden_probabilities)}
    contents = {MODEL: onnx, GOLDEN: json.dumps(golden).encode(), **files}
    whole = _sealed({**manifest, "format": FORMAT}, contents)
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


def load_artifact(folder: Path, threads: int = 1, where: str | None = None) -> Artifact:
    """A model folder, ready to score with so many threads, after all checks: format, contract, sha256, golden rows.

    `where` is what messages call the folder. Raises ArtifactError, naming what is wrong and the mend.
    """
    where = where or str(folder)
    content = _read(folder, MANIFEST, where)
    others = [name for name in read_manifest(content, where)["sha256"] if name != MANIFEST]
    return artifact_of(
        {MANIFEST: content} | {name: _read(folder, name, where) for name in others}, folder, threads, where
    )


def artifact_of(files: Mapping[str, bytes], folder: Path, threads: int = 1, where: str | None = None) -> Artifact:
    """The same from what was read of a folder, maybe on another machine: SCORING_FILES at least."""
    where = where or str(folder)
    manifest = read_manifest(files[MANIFEST], where)
    _check_contents(manifest, files, where)
    try:
        vocabulary, pricing = Vocabulary.from_json(manifest["vocabulary"]), Pricing.from_json(manifest["pricing"])
    except (KeyError, TypeError, ValueError, ContractError) as error:
        raise ArtifactError(
            f"{where}: the vocabulary or pricing in {MANIFEST} can't be read ({error}). {_TRAIN_AGAIN}"
        ) from error
    artifact = Artifact(folder, manifest, vocabulary, pricing, _session(files[MODEL], threads, where))
    _check_golden(artifact, files[GOLDEN], where)
    return artifact


def read_manifest(content: bytes, where: str) -> dict[str, Any]:
    """A manifest of a format and contract that this version understands, unchanged since it was written."""
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise _changed(where, MANIFEST) from error
    if not isinstance(manifest, dict):
        raise _changed(where, MANIFEST)
    _check_manifest(manifest, where)
    if manifest["sha256"].get(MANIFEST) != _manifest_digest(manifest):
        raise _changed(where, MANIFEST)
    return manifest


def _check_manifest(manifest: Mapping[str, Any], where: str) -> None:
    number, contract = manifest.get("format"), manifest.get("contract_version")
    if not isinstance(number, int) or number < 1:
        raise ArtifactError(
            f"{where}: {MANIFEST} names no format number, so this is no model of nightprice. Name a folder that "
            "training wrote."
        )
    if number > FORMAT:
        raise ArtifactError(
            f"{where} has the model format {number}, this nightprice reads up to {FORMAT}. Upgrade nightprice."
        )
    missing = [key for key in (*MANIFEST_KEYS, "sha256") if key not in manifest]
    if missing or not isinstance(manifest["sha256"], dict) or not {MODEL, GOLDEN} <= set(manifest["sha256"]):
        raise ArtifactError(f"{where}: {MANIFEST} is incomplete: {', '.join(missing) or 'sha256'}. {_TRAIN_AGAIN}")
    if contract != CONTRACT_VERSION:
        mend = "Upgrade nightprice." if isinstance(contract, int) and contract > CONTRACT_VERSION else _TRAIN_AGAIN
        raise ArtifactError(
            f"{where} was trained on contract {contract} of a listing, this nightprice has {CONTRACT_VERSION}. {mend}"
        )
    if manifest["features"] != list(FEATURES) or list(manifest["labels"]) != list(manifest["pricing"]["labels"]):
        raise ArtifactError(f"{where}: its features or labels are not those of its contract. {_TRAIN_AGAIN}")
    for name in manifest["sha256"]:
        if not _FILE_NAME.fullmatch(name):
            raise ArtifactError(
                f'{where}: "{name}" is no file name for a model. Use letters, digits, ".", "_" and "-".'
            )


def _check_contents(manifest: Mapping[str, Any], contents: Mapping[str, bytes], where: str) -> None:
    for name, content in contents.items():
        if name != MANIFEST and hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
            raise _changed(where, name)


def _check_golden(artifact: Artifact, content: bytes, where: str) -> None:
    try:
        golden = json.loads(content)
        expected = np.array(golden["probabilities"], np.float32)
        found = artifact.predict(np.array(golden["features"], np.float32))
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise ArtifactError(
            f"{where}: {MODEL} can't score the golden rows ({_first_line(error)}). {_TRAIN_AGAIN}"
        ) from error
    if found.shape != expected.shape or not len(expected):
        raise ArtifactError(
            f"{where}: {MODEL} gives {list(found.shape)} probabilities, {GOLDEN} has {list(expected.shape)}. "
            f"{_TRAIN_AGAIN}"
        )
    # Not `max() > TOLERANCE`: a NaN must fail too.
    if not (np.abs(found - expected) <= TOLERANCE).all():
        raise ArtifactError(
            f"{where}: {MODEL} gives the golden rows other probabilities than the trained estimator, by up to "
            f"{np.abs(found - expected).max():.2g} (allowed {TOLERANCE:g}). {_TRAIN_AGAIN}"
        )


def _session(onnx: bytes, threads: int, where: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise ArtifactError(
            f"{where}: ONNX Runtime can't load {MODEL} ({_first_line(error)}). {_TRAIN_AGAIN}"
        ) from error


def _read(folder: Path, name: str, where: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_file(where, name) from error
    except OSError as error:
        raise ArtifactError(
            f"{where}: {name} can't be read ({error.strerror}). Check its rights and its disk."
        ) from error


def missing_file(where: str, name: str) -> ArtifactError:
    """A file of a model is not there."""
    if name == MANIFEST:
        return ArtifactError(
            f"{where} is no model: it has no {MANIFEST}. Name a folder or version that training wrote to its end."
        )
    return ArtifactError(f"{where}: {name} is missing. Restore the file, or use another version.")


def _changed(where: str, name: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: {name} has changed since the model was written. Restore the file, or use another version."
    )


def _sealed(manifest: dict[str, Any], contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest with the sha256 of every file and, lest labels be swapped unseen, of itself without that."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # A round trip makes tuples lists, so that the manifest hashes now as it will when read.
    try:
        sealed: dict[str, Any] = json.loads(json.dumps({**manifest, "sha256": hashes}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"The manifest holds a value that JSON has no word for ({error}). Put plain numbers, texts or None."
        ) from error
    sealed["sha256"][MANIFEST] = _manifest_digest(sealed)
    return sealed


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    hashes = {name: digest for name, digest in manifest["sha256"].items() if name != MANIFEST}
    return hashlib.sha256(json.dumps({**manifest, "sha256": hashes}, sort_keys=True).encode()).hexdigest()


def _as_lists(matrix: Matrix) -> list[list[float | None]]:
    """Rows of plain numbers, NaN as None: JSON has no NaN, and every float32 survives its shortest decimal form."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
