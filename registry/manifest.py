"""The types of a model's manifest (`manifest.json`), as every reader gets it, whatever format it was written in."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired, cast, get_type_hints

from pydantic import (
    AfterValidator,
    Field,
    GetPydanticSchema,
    SkipValidation,
    TypeAdapter,
    ValidationError,
)

# pydantic can't read that of `typing` before Python 3.12.
from typing_extensions import TypedDict

from nightprice.defaults import NAME_PATTERN
from nightprice.errors import first_line
from registry.references import VERSION_PATTERN
from transforms.contract import ContractRef


def parse_time(text: str) -> datetime:
    """A time of a manifest or a record; UTC if it has no zone. Raises ValueError for what is not ISO 8601.

    >>> parse_time("2026-11-23T13:45:00+00:00") == parse_time("2026-11-23T13:45:00")
    True
    """
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _check_time(text: str) -> str:
    parse_time(text)
    return text


Time = Annotated[str, AfterValidator(_check_time)]
"""ISO 8601, in UTC."""
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Version = Annotated[str, Field(pattern=f"^{VERSION_PATTERN}$")]
FileName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# A float32 holds every whole number up to here, and nobody has as many rows or bytes as a 64-bit number counts.
Code = Annotated[int, Field(ge=0, le=2**24)]
Count = Annotated[int, Field(ge=0, lt=2**63)]

# `transforms` stands without typing_extensions.
_ContractRef = TypedDict("_ContractRef", get_type_hints(ContractRef))  # type: ignore[misc]


class _Label(TypedDict):
    kind: Literal["bands", "classes"]
    labels: list[str]
    bins: NotRequired[list[float]]
    minimum: NotRequired[float | None]
    ordered: NotRequired[bool]


def _checked_as(kind: Any) -> GetPydanticSchema:
    return GetPydanticSchema(lambda _, handler: handler.generate_schema(kind))


CheckedContractRef = Annotated[ContractRef, _checked_as(_ContractRef)]
LabelJson = Annotated[dict[str, Any], _checked_as(_Label)]
"""`as_json` of a label; `transforms.contract.label_from_json` reads it."""

Metrics = dict[str, float | None]
"""By name; None where the rows don't define a metric."""


class DatasetRef(TypedDict):
    """The dataset that a model was trained on."""

    uri: str
    version: str
    rows: Count | dict[str, Count]
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

    name: Name
    version: Version
    created: Time
    estimator: str
    contract: CheckedContractRef
    """The contract that it was trained under; the digest is empty for a model of format 1."""
    label: LabelJson
    features: list[str]
    """The columns of a feature vector, in order."""
    vocabulary: dict[str, dict[str, Code]]
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
    # For the report that training writes: nobody reads them back, and older models have fewer entries.
    evaluation: NotRequired[SkipValidation[Evaluation]]
    comparison: NotRequired[SkipValidation[list[Comparison]]]
    notes: NotRequired[list[str]]
    """What is thin or strange in the training rows and the evaluation, in a sentence each."""


class ModelManifest(ModelDescription):
    """A whole manifest."""

    format: int
    """The format that the model was written in."""
    sha256: dict[FileName, Digest]
    """By file; the manifest's own is that of the manifest without it."""
    sizes: NotRequired[dict[FileName, Count]]
    """By file, in bytes, without the manifest's own; models of before 0.1.0 have none."""


_SCHEMA = TypeAdapter(ModelManifest)


def check_manifest(manifest: Any) -> ModelManifest:
    """The same manifest, once every entry is of its type. Raises ValueError, which names the first that is not."""
    try:
        _SCHEMA.validate_python(manifest, strict=True)
    except ValidationError as error:
        # Without the cause, whose text quotes the values.
        raise ValueError(first_problem(error)) from None
    return cast(ModelManifest, manifest)


def first_problem(error: Exception) -> str:
    """What is wrong, in half a sentence: of a failed validation, the first entry that is not as it should be."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"incomplete: {name}"
    if first["type"] == "string_pattern_mismatch":
        return f'wrong: {name}: "{first["input"][:80]}" is not of the form {first["ctx"]["pattern"]}'
    problem = first_line(first["msg"]).removeprefix("Value error, ")
    return f"wrong: {name}: {problem}" if name else problem


class VersionSummary(TypedDict):
    """One version of a model in a list."""

    name: str
    version: str
    created: str | None
    estimator: str | None
    metrics: Metrics
    dataset: DatasetRef | None
    error: NotRequired[str]
    """What is wrong with a version that can't be used; it has none of the facts above."""


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


def summary_of_broken(name: str, version: str, error: str) -> VersionSummary:
    """What a list of versions shows of one that can't be used."""
    return {
        "name": name,
        "version": version,
        "created": None,
        "estimator": None,
        "metrics": {},
        "dataset": None,
        "error": error,
    }
