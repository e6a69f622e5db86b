"""Training: from a processed dataset to a checked, evaluated, published model version."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from nightprice.errors import UsageError
from pipeline import progress
from pipeline.cluster.resources import await_workers
from pipeline.cluster.session import on_ray
from pipeline.datasets import Dataset, open_dataset
from pipeline.evaluation.evaluate import compared, evaluate_dataset, require_targets
from pipeline.evaluation.report import render_report
from pipeline.notes import field_notes, label_notes
from pipeline.provenance import code_version, library_versions
from pipeline.settings import Settings
from pipeline.split import Split, read_split
from pipeline.train.encoded_rows import encoded_rows
from pipeline.train.estimator import Estimator, Trained, TrainingRun, worker_cpus
from pipeline.train.estimators import DEFAULT, find_estimator
from pipeline.train.onnx_export import check_parity, with_missing
from pipeline.train.statistics import DatasetStatistics, collect_statistics
from pipeline.train.watchdog import Watchdog
from pipeline.versions import new_version
from registry.artifact import Artifact, load_artifact, write_artifact
from registry.registry import Registry
from registry.replacement import describe_label, difference
from transforms.contract import Contract, Label
from transforms.encode import Encoder, Matrix, Vocabulary

# So many of the checked rows travel with the artifact: half as they are, half with missing values.
GOLDEN_ROWS = 32
REPORT = "report.html"


@dataclass(frozen=True)
class _Run:
    """What one training run is about."""

    name: str
    version: str
    estimator: str
    dataset: Dataset
    split: Split
    statistics: DatasetStatistics
    encoder: Encoder
    workers: int
    settings: Settings
    started: datetime

    @property
    def contract(self) -> Contract:
        return self.dataset.contract


@on_ray
def train(
    data: str,
    *,
    estimator: str = DEFAULT,
    workers: int = 1,
    holdout_ids: str | None = None,
    registry: str,
    settings: Settings,
    compare: str | None = None,
) -> dict[str, Any]:
    """Train a model on a processed dataset, evaluate it on the holdout rows and publish it to a registry.

    `holdout_ids` names a file of keys that form the holdout; without, it is `settings.holdout_share` of the
    rows by a stable hash. `compare` is the reference of another model to evaluate on the same rows.
    Returns {"model": "NAME@VERSION", "metrics": {…}, "rows": {…}, "comparison": […], "notes": […],
    "report": address}.
    Raises UsageError for arguments that can't be, ContractError and TrainingError for data that no model can be
    trained on, ResourcesError when the workers find no room within `settings.resource_wait_seconds`.
    """
    kind = find_estimator(estimator)
    if workers < 1:
        raise UsageError(f"{workers} workers can't train. Give 1 or more.")
    contract = settings.load_contract()
    name = settings.model_name or contract.name
    target = Registry(registry, settings.cache_dir)
    other = target.load(compare) if compare else None
    if other:
        other.require(contract)
    split = read_split(holdout_ids, settings.holdout_share)
    dataset = open_dataset(data, contract)
    require_targets(dataset)
    _check_label(dataset, settings)
    if other:
        _check_comparable(other, dataset.contract, dataset.label)
    target.check_writable()
    labels = dataset.label.labels
    with tempfile.TemporaryDirectory(prefix="nightprice-") as scratch:
        await_workers(workers, worker_cpus(workers, settings), settings.resource_wait_seconds)
        progress.begin("learning the vocabulary", rows=dataset.manifest["rows"]["accepted"])
        statistics = collect_statistics(dataset.rows(training_columns(contract)), split, contract)
        statistics.check(labels, split)
        encoder = Encoder(contract, statistics.vocabulary(contract, labels))
        if other:
            _check_comparable(other, contract, dataset.label, encoder.vocabulary)
        now = datetime.now(UTC)
        run = _Run(name, new_version(now), estimator, dataset, split, statistics, encoder, workers, settings, now)
        artifact = _artifact(run, kind, other, Path(scratch))
        published = target.publish(artifact.folder, name)
    report = f"{target.uri}/{name}/versions/{published}/{REPORT}"
    manifest = artifact.manifest
    return {
        "model": artifact.ref,
        "metrics": manifest["metrics"],
        "rows": {
            "training": statistics.rows,
            "holdout": statistics.holdout,
            "measured": manifest["evaluation"]["rows"],
        },
        "comparison": manifest["comparison"],
        "notes": manifest["notes"],
        "report": report,
    }


def _check_label(dataset: Dataset, settings: Settings) -> None:
    """Raise UsageError for bins, labels or a minimum in the settings that are not those of the dataset."""
    if settings.bins is None and settings.labels is None and settings.minimum is None:
        return
    label = settings.label(dataset.contract)
    if label != dataset.label:
        raise UsageError(
            f'The settings ask for {describe_label(label.as_json())}, but "{dataset.address}" was processed with '
            f"{describe_label(dataset.label.as_json())}. Run `nightprice process` again, or unset bins, labels and "
            "minimum."
        )


def _check_comparable(other: Artifact, contract: Contract, label: Label, vocabulary: Vocabulary | None = None) -> None:
    """Raise UsageError for a model whose figures on this dataset would mean something else, or don't exist."""
    new = {"contract": contract.ref, "label": label.as_json(), "vocabulary": vocabulary or {}}
    if problem := difference(new, other.manifest):
        raise UsageError(f"The new model and {other.ref} can't be compared: {problem}. Leave --compare out.")


def training_columns(contract: Contract) -> tuple[str, ...]:
    """The columns of accepted rows that training reads."""
    return (contract.key, *contract.features, contract.label_name)


def _artifact(run: _Run, kind: Estimator, other: Artifact | None, scratch: Path) -> Artifact:
    """Fit, export, check, evaluate; returns the whole artifact, written in the scratch folder."""
    rows = with_missing(run.encoder.table(run.statistics.sample))
    begun = time.monotonic()
    trained = kind.fit(_training_run(run, kind, rows, scratch))
    seconds = time.monotonic() - begun
    progress.begin("checking the export")
    check_parity(trained.onnx, rows, trained.expected)
    manifest = _manifest(run, trained, seconds)
    draft = _written(scratch / "draft", manifest, trained, rows, run.split.ids_file())
    evaluation = evaluate_dataset(draft, run.dataset, run.split)
    others = [(other, evaluate_dataset(other, run.dataset, run.split))] if other else []
    notes = [*label_notes(run.statistics.training), *field_notes(run.statistics.sample, run.contract)]
    manifest |= {
        "metrics": evaluation["metrics"],
        "evaluation": evaluation,
        "comparison": compared(others),
        "notes": [*notes, *evaluation["notes"]],
    }
    files = run.split.ids_file() | {REPORT: render_report(manifest, run.dataset.manifest).encode()}
    return _written(scratch / "model", manifest, trained, rows, files)


def _training_run(run: _Run, kind: Estimator, sample: Matrix, scratch: Path) -> TrainingRun:
    labels, settings = run.dataset.label.labels, run.settings
    share = kind.validation_share(settings)
    rows = run.dataset.rows(training_columns(run.contract))
    return TrainingRun(
        rows=encoded_rows(rows, run.split, run.encoder, labels, share),
        contract=run.contract,
        labels=labels,
        counts=[run.statistics.training[label] for label in labels],
        sample=sample,
        workers=run.workers,
        settings=settings,
        name=f"{run.name}-{run.version}-{run.estimator}",
        scratch=str(scratch / "ray"),
        watchdog=Watchdog.over(run.workers, settings.resource_wait_seconds),
    )


def _manifest(run: _Run, trained: Trained, seconds: float) -> dict[str, Any]:
    """All that is known before the evaluation."""
    dataset = run.dataset
    return {
        "name": run.name,
        "version": run.version,
        "created": run.started.isoformat(timespec="seconds"),
        "estimator": run.estimator,
        "features": list(run.contract.features),
        "vocabulary": run.encoder.vocabulary,
        "label": dataset.label.as_json(),
        "contract": run.contract.ref,
        "metrics": {},
        "importance": dict(trained.importance),
        "dataset": {"uri": dataset.address.display, "version": dataset.version, "rows": dataset.manifest["rows"]},
        "split": run.split.as_json() | {"training_rows": run.statistics.rows, "holdout_rows": run.statistics.holdout},
        "training": {"workers": run.workers, "seconds": round(seconds, 1), **trained.facts},
        "settings": run.settings.model_dump(mode="json"),
        "code_version": code_version(),
        "libraries": library_versions(),
        "ray_job_id": ray.get_runtime_context().get_job_id(),
    }


def _written(
    folder: Path, manifest: Mapping[str, Any], trained: Trained, rows: Matrix, files: Mapping[str, bytes]
) -> Artifact:
    golden = _golden(len(rows))
    write_artifact(
        folder,
        manifest=manifest,
        onnx=trained.onnx,
        golden_features=rows[golden],
        golden_probabilities=trained.expected[golden].astype("float32"),
        files={**trained.files, **files},
    )
    return load_artifact(folder)


def _golden(rows: int) -> list[int]:
    """Positions of the golden rows: the first whole ones, and the first of the second half, with missing values."""
    half = min(GOLDEN_ROWS, rows) // 2
    return [*range(half), *range(rows // 2, rows // 2 + half)]
