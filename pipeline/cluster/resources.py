"""Waiting for what a cluster can't give yet: with a word, and with an end.

Ray itself waits for ever and says nothing: nodes may still come, whether an autoscaler or a person brings them.
"""

import logging
import os
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from nightprice.errors import NightpriceError

logger = logging.getLogger(__name__)

# A cluster that is there and free answers sooner; a wait that is longer is told.
QUIET_SECONDS = 5.0


class ResourcesError(NightpriceError):
    """The cluster did not give in time what the work needs; the message says what was wanted and what is there."""


def await_cpu(seconds: float) -> None:
    """Wait until a task with one CPU has run. Raises ResourcesError after `seconds`; the task then stays in the
    queue, and does nothing.
    """
    probe = ray.remote(num_cpus=1)(_nothing).remote()
    _await(probe, "one CPU for a task", seconds, "End other jobs, add nodes, or raise resource_wait_seconds.")


def await_workers(workers: int, cpus: float, seconds: float) -> None:
    """Wait until so many workers find room at once, and a task that reads for them. Raises ResourcesError after
    `seconds`.

    On a machine of its own, where no node can come, at once.
    """
    # Workers that took the last CPU would wait for ever for rows that nobody can read.
    group = placement_group([{"CPU": cpus}] * workers + [{"CPU": 1}])
    mend = "Give fewer --workers, set training_cpus lower, or add nodes."
    if not can_grow() and workers * cpus + 1 > ray.cluster_resources().get("CPU", 0):
        seconds = 0
    wanted = f"{workers * cpus + 1:g} CPUs: {cpus:g} for each of {workers} training workers, and one to read their rows"
    try:
        _await(group.ready(), wanted, seconds, mend)
    finally:
        remove_placement_group(group)


def can_grow() -> bool:
    """Whether this is a cluster that nodes may join, not Ray on this machine alone."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _await(ready: "ray.ObjectRef[Any]", wanted: str, seconds: float, mend: str) -> None:
    quiet = min(QUIET_SECONDS, seconds)
    if ray.wait([ready], timeout=quiet)[0]:
        return
    if seconds > quiet:
        logger.warning("Waiting up to %g s for %s. Now %s.", seconds, wanted, what_is_there())
        if ray.wait([ready], timeout=seconds - quiet)[0]:
            return
    raise ResourcesError(f"Nothing was started: it needs {wanted}; but after {seconds:g} s {what_is_there()}. {mend}")


def what_is_there() -> str:
    """What the cluster has, for messages."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources().get("CPU", 0)
    return (
        f"the cluster has {sum(nodes):g} CPUs, {max(nodes, default=0):g} at most on one node, and {free:g} of them free"
    )


def _nothing() -> None:
    """A task that needs only its place."""
