"""Ray for the pipeline: its settings, the cluster this process joins or starts, and the errors Ray wraps."""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from uuid import uuid4

from nightprice.errors import NightpriceError
from nightprice.ray_cluster import connect
from nightprice.ray_environment import configure_pipeline
from pipeline.cluster.causes import causes, is_advice, without_advice
from pipeline.progress import Progress

if TYPE_CHECKING:
    from ray.exceptions import RayError

P = ParamSpec("P")
R = TypeVar("R")

# Ray Data's scheduler looks for finished tasks once in this time, its default being 0.1 s, and a worker idles
# meanwhile.
SCHEDULER_TICK_S = 0.02
# Blocks of this size keep a worker's memory flat; Ray's default of 128 MiB is for bigger machines.
BLOCK_BYTES = 16 * 2**20


def start(num_cpus: int | None = None) -> None:
    """Join the cluster this process belongs to (`RAY_ADDRESS`, or inside a Ray job), or start Ray on this machine.

    Where Ray runs in this process already, only Ray Data's settings are made. Raises NightpriceError when the named
    cluster does not answer, or Ray does not start.
    """
    configure_pipeline()
    import ray

    if not ray.is_initialized():
        connect(num_cpus=num_cpus)
        if "RAY_ADDRESS" not in os.environ:
            _report_to_nobody()
    _configure_data()


def _report_to_nobody() -> None:
    """Ray Data tells an actor what it does, for the dashboard. Where Ray runs for this process alone there is no
    dashboard, and a small run would wait for the actor's process for a third of its time.
    """
    from ray.data._internal.stats import _StatsManager

    def nothing(*_: object, **__: object) -> None: ...

    manager: Any = _StatsManager
    manager.gen_dataset_id_from_stats_actor = staticmethod(lambda: uuid4().hex)
    for name in ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics"):
        setattr(manager, name, staticmethod(nothing))


def _configure_data() -> None:
    from ray.data import DataContext
    from ray.data._internal.execution import streaming_executor_state

    # There is no public setting; Ray reads this constant anew at every step.
    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = SCHEDULER_TICK_S
    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.print_on_execution_start = False
    # Else Ray Data wraps what a function of ours raised, and the original is lost on the way from the worker.
    context.raise_original_map_exception = True
    # What it logs as an error, traces included, is raised as well, and ends as one sentence.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def progress_gauge() -> Callable[[Progress], None]:
    """A watcher that publishes the progress among Ray's metrics, as `ray_nightprice_progress` by stage and unit."""
    from ray.util.metrics import Gauge

    gauge = Gauge("nightprice_progress", "What the run that goes on has done.", tag_keys=("stage", "unit"))

    def publish(progress: Progress) -> None:
        for unit, count in progress.counts.items():
            gauge.set(count, {"stage": progress.stage, "unit": unit})

    return publish


def on_ray(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the library that needs Ray: it joins or starts Ray first, and raises our errors unwrapped."""

    @wraps(function)
    def started(*args: P.args, **kwargs: P.kwargs) -> R:
        start()
        with ray_errors():
            return function(*args, **kwargs)

    return started


@contextmanager
def ray_errors() -> Iterator[None]:
    """Raise the error that a task of ours raised, in place of what Ray wrapped around it."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        cause = _unwrapped(error)
        if cause is None:
            raise
        raise cause from error


# What is left of a task when its process or machine is gone.
DIED = (
    "The workers of a task died, every time that it was tried. Nothing was published: what was live stays live. Most "
    "often a node ran out of memory: give Ray fewer CPUs there (`ray start --num-cpus`), so that fewer tasks share it. "
    "Or its disk is full: look with `df`."
)


def _unwrapped(error: "RayError") -> NightpriceError | None:
    from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError
    from ray.exceptions import RayError as RayErrorType

    for cause in causes(error):
        if isinstance(cause, (ActorDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)):
            return NightpriceError(DIED)
        if isinstance(cause, RayErrorType):
            # It is also of the type of what it wraps, but its text is a trace.
            continue
        if isinstance(cause, NightpriceError):
            cause.args = (without_advice(str(cause)),)
            return cause
        if isinstance(cause, OSError) and is_advice(cause.filename):
            del cause.filename
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return NightpriceError(
                f"No space left on the device: {cause}. Free some space or name another address; nothing was published."
            )
    return None
