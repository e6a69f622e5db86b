"""The types of a model's manifest (`manifest.json`), as every reader gets it, whatever format it was written in."""

from typing import Any, NotRequired, TypedDict

from transforms.contract import ContractRef

Metrics = dict[str, float | None]
"""By name; None where the rows don't define a metric."""


class DatasetRef(TypedDict):
    """The dataset that a model was trained on."""

    uri: str
    version: str
    rows: Any
    """Counts of its rows, as the dataset's manifest has them."""


class ClassReport(TypedDict):
    """How good a model is for one label."""

    precision: float
    recall: float
    f1: float
    support: int


class CalibrationBin(TypedDict):
    """The rows whose winning probability lies in a range: how sure the model was, and how often it was right."""

    lower: float
    upper: float
    confidence: float
    accuracy: float
    rows: int


class SegmentAccuracy(TypedDict):
    """The accuracy on the rows with one value of a field."""

    value: str
    rows: int
    accuracy: float


class Majority(TypedDict):
    """What always giving the most frequent label would score."""

    label: str
    accuracy: float
    macro_f1: float


class Evaluation(TypedDict):
    """How good a model is on some rows, in JSON's types."""

    rows: int
    unscorable: dict[str, int]
    """Rows that the model can't score, by `field:problem`; they are in no other figure."""
    labels: list[str]
    metrics: Metrics
    confusion: list[list[int]]
    """True label × predicted label."""
    per_class: dict[str, ClassReport]
    calibration: list[CalibrationBin]
    segments: dict[str, list[SegmentAccuracy]]
    majority: Majority
    notes: NotRequired[list[str]]
    """What is thin or strange about these figures, in a sentence each."""


class Comparison(TypedDict):
    """Another model on the same rows."""

    name: str
    ref: str
    estimator: str
    rows: int
    metrics: Metrics


class ModelDescription(TypedDict):
    """What training says about a model: all of a manifest but what `write_artifact` adds."""

    name: str
    version: str
    created: str
    """UTC, ISO 8601."""
    estimator: str
    contract: ContractRef
    """The contract that it was trained under; the digest is empty for a model of format 1."""
    label: dict[str, Any]
    """`as_json` of the label; `transforms.contract.label_from_json` reads it."""
    features: list[str]
    """The columns of a feature vector, in order."""
    vocabulary: dict[str, dict[str, int]]
    """By feature that is a text: the values that the model learned, each with its code."""
    metrics: Metrics

    importance: NotRequired[dict[str, float]]
    dataset: NotRequired[DatasetRef]
    split: NotRequired[dict[str, Any]]
    training: NotRequired[dict[str, Any]]
    settings: NotRequired[dict[str, Any]]
    code_version: NotRequired[str]
    libraries: NotRequired[dict[str, str]]
    ray_job_id: NotRequired[str]
    evaluation: NotRequired[Evaluation]
    comparison: NotRequired[list[Comparison]]
    notes: NotRequired[list[str]]
    """What is thin or strange in the training rows and the evaluation, in a sentence each."""


class ModelManifest(ModelDescription):
    """A whole manifest."""

    format: int
    """The format that the model was written in."""
    sha256: dict[str, str]
    """By file; the manifest's own is that of the manifest without it."""


class VersionSummary(TypedDict):
    """One version of a model in a list."""

    name: str
    version: str
    created: str
    estimator: str
    metrics: Metrics
    dataset: DatasetRef | None


def summary_of(manifest: ModelManifest) -> VersionSummary:
    """What a list of versions shows of a manifest."""
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "created": manifest["created"],
        "estimator": manifest["estimator"],
        "metrics": manifest["metrics"],
        "dataset": manifest.get("dataset"),
    }
