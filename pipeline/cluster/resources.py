"""Waiting for resources that a cluster does not have yet: announced, and limited.

Ray itself waits without a limit or a message, since an autoscaler or a person may still add nodes.
"""

import logging
import os
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from nightprice.errors import NightpriceError

logger = logging.getLogger(__name__)

# A cluster with free CPUs answers sooner; a longer wait is announced.
QUIET_SECONDS = 5.0


class ResourcesError(NightpriceError):
    """The cluster did not offer in time what the work needs; the message says what was needed and what is available."""


def await_cpu(seconds: float) -> None:
    """Wait until a task with one CPU has run.

    Raises ResourcesError after `seconds`; the task then stays in the queue, and does nothing.
    """
    probe = ray.remote(num_cpus=1)(_nothing).remote()
    _await(probe, "one CPU for a task", seconds, "End other jobs, add nodes, or raise resource_wait_seconds.")


def await_workers(workers: int, cpus: float, seconds: float) -> None:
    """Wait until so many workers, and a task that reads for them, fit into the cluster at once.

    Raises ResourcesError after `seconds`; at once on a machine of its own, which no node can join.
    """
    # Workers that took the last CPU would wait without end for rows that no task can read.
    group = placement_group([{"CPU": cpus}] * workers + [{"CPU": 1}])
    fix = "Give fewer --workers, set training_cpus lower, or add nodes."
    if not can_grow() and workers * cpus + 1 > ray.cluster_resources().get("CPU", 0):
        seconds = 0
    needed = f"{workers * cpus + 1:g} CPUs: {cpus:g} for each of {workers} training workers, and one to read their rows"
    try:
        _await(group.ready(), needed, seconds, fix)
    finally:
        remove_placement_group(group)


def can_grow() -> bool:
    """Whether this is a cluster that nodes may join, not Ray on this machine alone."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _await(ready: "ray.ObjectRef[Any]", needed: str, seconds: float, fix: str) -> None:
    quiet = min(QUIET_SECONDS, seconds)
    if ray.wait([ready], timeout=quiet)[0]:
        return
    if seconds > quiet:
        logger.warning("Waiting up to %g s for %s. Now %s.", seconds, needed, describe_cluster())
        if ray.wait([ready], timeout=seconds - quiet)[0]:
            return
    raise ResourcesError(f"Nothing was started: it needs {needed}; but after {seconds:g} s {describe_cluster()}. {fix}")


def describe_cluster() -> str:
    """What the cluster has, for messages."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources().get("CPU", 0)
    return (
        f"the cluster has {sum(nodes):g} CPUs, {max(nodes, default=0):g} at most on one node, and {free:g} of them free"
    )


def _nothing() -> None:
    """A task that needs only its CPU."""
