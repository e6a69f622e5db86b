"""Watching over a training run: Ray waits without end for workers to start and for rows to reach them, and says nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import ray.train
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.nodes import broken_nodes
from pipeline.resources import can_grow, what_is_there
from pipeline.train.learn import TrainingError

T = TypeVar("T")

# Between two signs of a worker that has its rows, and between two looks at the signs.
SIGN_SECONDS = 5.0


class Signs:
    """When each worker gave its last sign; an actor."""

    def __init__(self, workers: int) -> None:
        self._last = [time.monotonic()] * workers

    def give(self, rank: int) -> None:
        self._last[rank] = time.monotonic()

    def quiet_seconds(self) -> float:
        """How long the quietest worker has given none."""
        return time.monotonic() - min(self._last)


@dataclass(frozen=True)
class Watch:
    """What a run may take without a sign of every worker, in seconds, and where they leave their signs."""

    seconds: float
    signs: Any
    """The handle of an actor `Signs`; None where Ray runs on this machine alone, of which nothing is missing that was there before."""

    @classmethod
    def over(cls, workers: int, seconds: float) -> "Watch":
        """Over a run that begins now."""
        if not can_grow():
            return cls(seconds, None)
        # Here, where the run's controller is too: its own death ends the run.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Signs)
        return cls(seconds, actor.options(scheduling_strategy=here).remote(workers))

    def run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, and stay free to give it up: on Ctrl-C, or with TrainingError once a worker was quiet for too long.

        Ray Train itself answers Ctrl-C with the end of the process, as long as nothing keeps its controller from hearing of it.
        """
        done: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(done, work), name="training", daemon=True).start()
        while not wait([done], timeout=None if self.signs is None else SIGN_SECONDS).done:
            if self._is_quiet():
                raise TrainingError(
                    f"Training stands still: for {self.seconds:g} s a worker has not started, or no rows have reached it. "
                    f"{what_is_wrong()} Nothing was published. Mend that, or raise resource_wait_seconds."
                )
        return done.result()

    def _is_quiet(self) -> bool:
        try:
            return bool(ray.get(self.signs.quiet_seconds.remote(), timeout=self.seconds) > self.seconds)
        except GetTimeoutError:  # not even the actor has started
            return True


def with_signs(pieces: Iterator[T], signs: Any) -> Iterator[T]:
    """On a worker: pieces of rows as they come, each with a sign; after the last one, when nothing is waited for, signs of their own."""
    if signs is None:
        yield from pieces
        return
    rank = ray.train.get_context().get_world_rank()
    signs.give.remote(rank)
    for piece in pieces:
        signs.give.remote(rank)
        yield piece
    threading.Thread(target=_go_on_giving, args=(signs, rank), name="signs", daemon=True).start()


def what_is_wrong() -> str:
    """What keeps the cluster from going on, in sentences: nodes that can't work, else the CPUs that are free."""
    broken = ", ".join(broken_nodes()) if can_grow() else ""
    return f"{broken[:1].upper()}{broken[1:]}." if broken else f"Now {what_is_there()}."


def _fulfil(done: "Future[T]", work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def _go_on_giving(signs: Any, rank: int) -> None:
    while True:
        signs.give.remote(rank)
        time.sleep(SIGN_SECONDS)
