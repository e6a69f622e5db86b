"""Ray for this process: the environment it reads, the cluster it joins or starts, the errors it wraps."""

import errno
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nightprice.errors import NightpriceError
from pipeline.cluster.causes import causes, is_advice, without_advice

if TYPE_CHECKING:
    from ray.exceptions import RayError

# Read by Ray when it is imported or started; whoever sets one of them keeps the own value.
ENVIRONMENT = {
    # Ray turns token authentication on for a local cluster and leaves a token behind that other commands trip over.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run` Ray would start every worker through uv again.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray starts 32 actors to read Parquet footers: 2 to 3 s on a small machine.
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # What goes wrong is raised as one sentence; Ray's core would print its own view of it, and warnings of its
    # own, beside.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# The same, where Ray runs on this machine alone: training starts and ends seconds sooner, and no node can be preempted.
LOCAL_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
# Ray Data's scheduler looks for finished tasks once in this time, its default being 0.1 s, and a worker idles
# meanwhile.
SCHEDULER_TICK_S = 0.02
# Blocks of this size keep a worker's memory flat; Ray's default of 128 MiB is for bigger machines.
BLOCK_BYTES = 16 * 2**20


def configure_environment() -> None:
    """Set what Ray reads at import. Call it before the first `import ray`."""
    local = {} if "RAY_ADDRESS" in os.environ else LOCAL_ENVIRONMENT
    for name, value in (ENVIRONMENT | local).items():
        os.environ.setdefault(name, value)


def start(num_cpus: int | None = None) -> None:
    """Join the cluster this process belongs to (`RAY_ADDRESS`, or inside a Ray job), or start Ray on this machine.

    Raises NightpriceError when the named cluster does not answer, or Ray does not start.
    """
    configure_environment()
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized():
        if address:
            check_answers(address)
        place: dict[str, Any] = (
            {"address": address} if address else {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
        )
        try:
            with _held_back_stderr():
                ray.init(**place, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # what Ray raises has no base, down to Exception itself
            raise NightpriceError(
                _no_start(address, next(iter(str(error).strip().splitlines()), type(error).__name__))
            ) from error
    _configure_data()


def _no_start(address: str | None, why: str) -> str:
    if address:
        return f"Ray at RAY_ADDRESS={address} does not answer: {why} Start it, mend RAY_ADDRESS, or unset it to run on this machine alone."
    # Ray gives its own processes 30 s.
    return f"Ray does not start on this machine: {why} Try again when it is less busy; Ray's logs are in /tmp/ray/session_latest/logs."


@contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Ray's core announces its log level on descriptor 2 itself; whatever is written meanwhile is shown only if it
    fails.
    """
    with tempfile.TemporaryFile() as written, open(os.dup(2), "wb") as screen:
        sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            screen.write(written.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen.fileno(), 2)


def check_answers(address: str, seconds: float = 3.0) -> None:
    """Raise NightpriceError unless something listens at a cluster's address: Ray itself tries for two minutes, then
    dies.

    Addresses without host and port, such as "auto", are left to Ray.
    """
    parts = urlsplit(address if "://" in address else f"ray-gcs://{address}")
    if parts.scheme in ("http", "https"):
        raise NightpriceError(
            f"RAY_ADDRESS={address} is the address of the dashboard, good for `ray job submit` only. Set it to "
            "HOST:6379 of the head node."
        )
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NightpriceError(
            f"RAY_ADDRESS={address} is no address: {error}. Write HOST:PORT, as in 10.0.0.5:6379."
        ) from error
    if host is None or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise NightpriceError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}). Start one there with "
            "`ray start --head`, "
            "mend RAY_ADDRESS, or unset it to run on this machine alone."
        ) from error


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


@contextmanager
def ray_errors() -> Iterator[None]:
    """Raise the error that a task of ours raised, in place of what Ray wrapped around it."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        found = _unwrapped(error)
        if found is None:
            raise
        raise found from error


# What is left of a task when its process or machine is gone.
DIED = (
    "The workers of a task died, every time that it was tried. Nothing was published: what was live stays live. "
    "Most often a node ran out of memory: give Ray fewer CPUs there (`ray start --num-cpus`), so that fewer "
    "tasks share it. "
    "Or its disk is full: look with `df`."
)


def _unwrapped(error: "RayError") -> NightpriceError | None:
    from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError
    from ray.exceptions import RayError as RayErrorType

    for seen in causes(error):
        if isinstance(seen, (ActorDiedError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)):
            return NightpriceError(DIED)
        if isinstance(seen, RayErrorType):
            # It is also of the type of what it wraps, but its text is a trace.
            continue
        if isinstance(seen, NightpriceError):
            seen.args = (without_advice(str(seen)),)
            return seen
        if isinstance(seen, OSError) and is_advice(seen.filename):
            del seen.filename
        if isinstance(seen, OSError) and seen.errno == errno.ENOSPC:
            return NightpriceError(
                f"No space left on the device: {seen}. Free some space or name another address; nothing was published."
            )
    return None
