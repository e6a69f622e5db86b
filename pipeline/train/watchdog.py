"""A watchdog over a training run: Ray waits without end for workers to start and for rows to reach them, and says
nothing.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import ray.train
from ray.exceptions import GetTimeoutError

from pipeline.cluster.nodes import broken_nodes, drivers_node
from pipeline.cluster.resources import can_grow, describe_cluster
from pipeline.train.statistics import TrainingError

T = TypeVar("T")

# Between two heartbeats of a worker that has its rows, and between two looks at them.
HEARTBEAT_SECONDS = 2.0


class Heartbeats:
    """When each worker gave its last heartbeat; an actor."""

    def __init__(self, workers: int) -> None:
        self._last = [time.monotonic()] * workers

    def beat(self, rank: int) -> None:
        self._last[rank] = time.monotonic()

    def silent_seconds(self) -> float:
        """Seconds since the last heartbeat of the most silent worker."""
        return time.monotonic() - min(self._last)


@dataclass(frozen=True)
class Watchdog:
    """Ends a run once a worker has sent no heartbeat for `seconds`."""

    seconds: float
    heartbeats: Any
    """The handle of an actor `Heartbeats`; None where Ray runs on this machine alone, which can lose no node."""

    @classmethod
    def over(cls, workers: int, seconds: float) -> "Watchdog":
        """Over a run that begins now."""
        if not can_grow():
            return cls(seconds, None)
        actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Heartbeats)
        return cls(seconds, actor.options(scheduling_strategy=drivers_node()).remote(workers))

    def run(self, work: Callable[[], T], meanwhile: Callable[[], None]) -> T:
        """Do the work in a thread and return its result; every HEARTBEAT_SECONDS call `meanwhile`.

        Raises TrainingError once a worker was silent for too long.

        Ctrl-C ends the wait as it ends any other; were Ray Train in the main thread, it would answer with exit code 1
        and no word.
        """
        done: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(done, work), name="training", daemon=True).start()
        while not wait([done], timeout=HEARTBEAT_SECONDS).done:
            meanwhile()
            if self.heartbeats is not None and self._is_silent():
                raise TrainingError(
                    f"Training stands still: for {self.seconds:g} s a worker has not started, or no rows have "
                    "reached it. "
                    f"{what_is_wrong()} Nothing was published. Fix that, or raise resource_wait_seconds."
                )
        return done.result()

    def _is_silent(self) -> bool:
        try:
            return bool(ray.get(self.heartbeats.silent_seconds.remote(), timeout=self.seconds) > self.seconds)
        except GetTimeoutError:  # not even the actor has started
            return True


def with_heartbeats(pieces: Iterator[T], heartbeats: Any) -> Iterator[T]:
    """On a worker: the pieces of its rows, a heartbeat with each, and regular ones after the last, when it waits
    for rows no more.
    """
    if heartbeats is None:
        yield from pieces
        return
    rank = ray.train.get_context().get_world_rank()
    heartbeats.beat.remote(rank)
    for piece in pieces:
        heartbeats.beat.remote(rank)
        yield piece
    threading.Thread(target=_beat_on, args=(heartbeats, rank), name="heartbeats", daemon=True).start()


def what_is_wrong() -> str:
    """What keeps the cluster from going on, in sentences: nodes that can't work, else the CPUs that are free."""
    broken = ", ".join(broken_nodes()) if can_grow() else ""
    return f"{broken[:1].upper()}{broken[1:]}." if broken else f"Now {describe_cluster()}."


def _fulfil(done: "Future[T]", work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def _beat_on(heartbeats: Any, rank: int) -> None:
    while True:
        heartbeats.beat.remote(rank)
        time.sleep(HEARTBEAT_SECONDS)
