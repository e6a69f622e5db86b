"""What an estimator is: something that fits encoded rows on Ray Train and comes back as ONNX."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.data
import ray.train
from ray.data import ExecutionOptions
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.train import DataConfig, RunConfig, ScalingConfig
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from nightprice.machine import process_cpus
from pipeline import progress
from pipeline.cluster.nodes import drivers_node
from pipeline.cluster.resources import can_grow
from pipeline.progress import Progress
from pipeline.settings import Settings
from pipeline.train.encoded_rows import padded
from pipeline.train.statistics import TrainingError
from pipeline.train.watchdog import HEARTBEAT_SECONDS, Watchdog, what_is_wrong
from transforms.contract import Contract
from transforms.encode import Matrix

# A worker or node that dies costs a new start of the run, not the run.
_MAX_FAILURES = 2
# Ray counts spot preemptions separately and would restart without limit.
_MAX_PREEMPTIONS = 10
# Of a new start that finds no room, each of 60 s (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S); without a limit, Ray tries
# for ever.
_MAX_STARTS = 5
_UNCHANGED = "Nothing was published."


@dataclass(frozen=True)
class TrainingRun:
    """One training run: its rows and everything an estimator needs to know about them."""

    rows: ray.data.Dataset
    """Encoded training rows, `pipeline.train.encoded_rows`."""
    contract: Contract
    labels: tuple[str, ...]
    counts: list[int]
    """Training rows of each label."""
    sample: Matrix
    """Rows to check the export on, with missing values."""
    workers: int
    settings: Settings
    name: str
    """Of the run, as Ray's dashboard shows it."""
    scratch: str
    """A folder of the driver's machine, for Ray Train's notes about the run."""
    watchdog: Watchdog

    @property
    def cpus(self) -> float:
        """CPUs that Ray sets aside for each worker."""
        return worker_cpus(self.workers, self.settings)

    @property
    def threads(self) -> int:
        """Threads of each worker: reading is over when they start, so they may use every CPU of a small cluster."""
        return max(1, int(self.settings.training_cpus or _cluster_cpus() / self.workers))


def worker_cpus(workers: int, settings: Settings) -> float:
    """CPUs that Ray sets aside for each worker: one, or less where that would leave none to read the data.

    More workers than CPUs get one each all the same: nodes may join, and more processes than CPUs help
    nobody.
    """
    if settings.training_cpus is not None:
        return settings.training_cpus
    available = _cluster_cpus()
    return 1.0 if workers > available else max(0.01, min(1.0, (available - 1) / workers))


def _cluster_cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 1))


def threads(requested: int) -> int:
    """On a worker: at most as many threads as this machine has CPUs for the process."""
    return min(requested, process_cpus())


Worker = Callable[[dict[str, Any]], Any]
"""What each worker runs, given a configuration; `ray.train.get_dataset_shard("train")` are its rows."""


def run_workers(
    run: TrainingRun,
    worker: Worker,
    config: dict[str, Any],
    *,
    split_rows: bool,
    trainer: type[Any] = DataParallelTrainer,
) -> list[Any]:
    """Run a function on all workers of a run and return what it returned on each; `split_rows`: each worker gets its
    share of the rows, else all of them.

    One worker on a machine of its own is this process: Ray Train's controller and worker would take longer to start
    than most models to train.

    Raises TrainingError with the first worker's error when the run failed for good, or stood still for longer than
    the watchdog allows.
    """
    # Row sampling follows the order of rows: without this, equal runs would differ.
    order = ExecutionOptions(preserve_order=True)
    rows = run.rows
    if split_rows:
        rows = padded(rows, sum(run.counts), len(run.contract.features), run.workers)
    rows.context.execution_options = order
    datasets = {"train": rows}
    if run.workers == 1 and not can_grow():
        here = trainer(worker, train_loop_config=config, datasets=datasets, scaling_config=ScalingConfig(num_workers=0))
        return [_fit(here).return_value]
    progress.begin("starting the workers")
    actor: Any = ray.remote(num_cpus=0)(_Results)
    results = actor.options(scheduling_strategy=drivers_node()).remote()
    failures = FailureConfig(
        max_failures=_MAX_FAILURES,
        max_preemption_failures=_MAX_PREEMPTIONS,
        controller_failure_limit=_MAX_STARTS - 1,
    )
    apart = trainer(
        _hand_over,
        train_loop_config={"worker": worker, "config": config, "results": results},
        datasets=datasets,
        dataset_config=DataConfig("all" if split_rows else [], execution_options=order),
        scaling_config=ScalingConfig(num_workers=run.workers, resources_per_worker={"CPU": run.cpus}),
        run_config=RunConfig(name=run.name, storage_path=run.scratch, failure_config=failures),
    )
    run.watchdog.run(partial(_fit, apart), partial(_show, results))
    return list(ray.get(results.all.remote()))


class _Results:
    """What the workers returned, by rank, and how far the first one is; an actor, since Ray Train hands over what the
    first one returned alone.
    """

    def __init__(self) -> None:
        self._results: dict[int, Any] = {}
        self._progress: Progress | None = None

    def tell(self, progress: Progress) -> None:
        self._progress = progress

    def told(self) -> Progress | None:
        return self._progress

    def add(self, rank: int, result: Any) -> None:
        self._results[rank] = result

    def all(self) -> list[Any]:
        return [self._results[rank] for rank in sorted(self._results)]


def _hand_over(config: dict[str, Any]) -> None:
    rank, results = ray.train.get_context().get_world_rank(), config["results"]
    tell = progress.at_intervals(HEARTBEAT_SECONDS, results.tell.remote)
    with progress.watched(tell) if rank == 0 else nullcontext():
        result = config["worker"](config["config"])
    ray.get(results.add.remote(rank, result))


def _show(results: Any) -> None:
    """Pass on how far the first worker is, if the actor answers at once."""
    ready, _ = ray.wait([results.told.remote()], timeout=HEARTBEAT_SECONDS)
    if ready and (now := ray.get(ready[0])):
        progress.tell(now)


def _fit(trainer: Any) -> Any:
    try:
        return trainer.fit()
    except WorkerGroupError as error:
        rank, cause = min(error.worker_failures.items())
        raise TrainingError(f"Training failed on worker {rank}: {_what_happened(cause)} {_UNCHANGED}") from error
    except TrainingFailedError as error:
        raise TrainingError(
            f"Training could not start again: {_first_sentence(error)}. {what_is_wrong()} {_UNCHANGED}"
        ) from error
    except Exception as error:
        raise TrainingError(f"Training failed: {_what_happened(error)} {_UNCHANGED}") from error


def _first_sentence(error: Exception) -> str:
    """Of Ray's text, without its own heading and the trace of an error."""
    text = str(error).removeprefix("Training failed due to controller error:\n").partition(". ")[0]
    return text.partition(" due to error:\n")[0].strip().rstrip(".")


def _what_happened(error: Exception) -> str:
    """In sentences."""
    # Ray Train wraps what it found when it looked after its workers.
    if isinstance(getattr(error, "health_check_failure", error), RayActorError):
        starts = _MAX_FAILURES + 1
        return f"its process or its node died, as in each of {starts} starts. Most often a node ran out of memory."
    # What comes from the tasks that read for a worker reaches it as a text.
    if WorkerCrashedError.__name__ in str(error):
        return f"the processes that read its rows died, every time. {what_is_wrong()}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # XGBoost's text ends with a trace.
    return next((line for line in lines if "Check failed" in line), lines[-1]).rstrip(".") + "."


@dataclass(frozen=True)
class Trained:
    """A fitted estimator, ready for an artifact."""

    onnx: bytes
    expected: npt.NDArray[np.float64]
    """What the estimator itself says of the run's sample, [n, k]: the ONNX model must agree."""
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
    def fit(self, run: TrainingRun) -> Trained:
        """Fit the rows of a run on its workers."""
