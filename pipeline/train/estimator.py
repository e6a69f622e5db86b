"""What an estimator is: something that fits encoded rows on Ray Train and comes back as ONNX."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data
from ray.data import ExecutionOptions
from ray.train import Checkpoint, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from pipeline.settings import Settings
from pipeline.train.learn import TrainingError
from pipeline.train.matrix import padded
from transforms.encode import Matrix

# A worker or node that dies costs a new start of the run, not the run.
_MAX_FAILURES = 2


@dataclass(frozen=True)
class Job:
    """One training run: its rows and everything an estimator needs to know about them."""

    rows: ray.data.Dataset
    """Encoded training rows, `pipeline.train.matrix`."""
    labels: tuple[str, ...]
    counts: list[int]
    """Training rows of each category."""
    sample: Matrix
    """Rows to check the export on, with missing values."""
    workers: int
    settings: Settings
    name: str
    """Of the run, as Ray's dashboard shows it."""
    storage: str
    """A folder or bucket that driver and workers all reach."""

    @property
    def cpus(self) -> float:
        """CPUs that Ray sets aside for each worker: one, or less where that would leave none to read the data."""
        if self.settings.training_cpus is not None:
            return self.settings.training_cpus
        return max(0.01, min(1.0, (_cluster_cpus() - 1) / self.workers))

    @property
    def threads(self) -> int:
        """Threads of each worker: reading is over when they start, so they may use every CPU of a small cluster."""
        return max(1, int(self.settings.training_cpus or _cluster_cpus() / self.workers))

    def trainer_options(self, split_rows: bool) -> dict[str, Any]:
        """The arguments that all Ray Train trainers take; `split_rows`: each worker gets its share, else all rows."""
        # Row sampling follows the order of rows: without this, equal runs would differ.
        options = ExecutionOptions(preserve_order=True)
        return {
            "datasets": {"train": padded(self.rows, sum(self.counts), self.workers) if split_rows else self.rows},
            "dataset_config": DataConfig("all" if split_rows else [], execution_options=options),
            "scaling_config": ScalingConfig(num_workers=self.workers, resources_per_worker={"CPU": self.cpus}),
            "run_config": RunConfig(name=self.name, storage_path=self.storage, failure_config=FailureConfig(max_failures=_MAX_FAILURES)),
        }


def _cluster_cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 1))


def threads(wanted: int) -> int:
    """On a worker: at most as many threads as this machine has CPUs for the process."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(wanted, there)


def fit(trainer: Any) -> Checkpoint:
    """Run a Ray Train trainer and return what it reported last.

    Raises TrainingError with the first worker's error when the run failed for good.
    """
    try:
        checkpoint: Checkpoint | None = trainer.fit().checkpoint
    except WorkerGroupError as error:
        rank, cause = min(error.worker_failures.items())
        raise TrainingError(f"Training failed on worker {rank}: {_last_line(cause)}. Nothing was published.") from error
    if checkpoint is None:
        raise TrainingError("Training ended without a model. Nothing was published; look at the workers' logs.")
    return checkpoint


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")


@dataclass(frozen=True)
class Trained:
    """A fitted estimator, ready for an artifact."""

    onnx: bytes
    expected: npt.NDArray[np.float64]
    """What the estimator itself says of the job's sample, [n, k]: the ONNX model must agree."""
    importance: Mapping[str, float]
    """Each feature's share, adding up to 1."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The estimator's own safe format, where it has one."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a reader of the manifest may want to know, such as the number of rounds."""


class Estimator(ABC):
    """A kind of model that `train` can fit."""

    def validation_share(self, settings: Settings) -> float:
        """The share of the training rows that it watches instead of learning from."""
        return 0.0

    @abstractmethod
    def fit(self, job: Job) -> Trained:
        """Fit the rows of a job on its workers."""
