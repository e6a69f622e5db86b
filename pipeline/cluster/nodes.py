"""Whether every node can work.

Ray places work on a node whose disk is full as on any other: it crashes there, or never starts.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nightprice.errors import NightpriceError

logger = logging.getLogger(__name__)

# Longer than Ray takes to notice that a node is dead (65 s by default), so that a dead one is not called full.
ANSWER_SECONDS = 90.0
# With less, a process dies when it writes its log.
FULL_BYTES = 2**20
# Ray's default of RAY_local_fs_capacity_threshold: with a larger share in use it spills nothing to a disk.
SPILL_SHARE = 0.95


class NodeError(NightpriceError):
    """A node can't run what Ray would place there; the message says which one and what was found."""


def drivers_node() -> NodeAffinitySchedulingStrategy:
    """Places an actor on the node of the driver, where Ray Train's controller is too: without it, a run is over."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def check_nodes(seconds: float = ANSWER_SECONDS) -> None:
    """Run a task on every node with CPUs. Raises NodeError if one crashes, does not end within `seconds`, or finds
    the disk full.

    Warns of a disk that Ray does not spill to: work that fits into memory needs none.
    """
    probes = _probe_nodes(seconds)
    if broken := _broken_nodes(probes, seconds):
        raise NodeError(
            f"Nothing was started: {', '.join(broken)}. Free some space on the disk of that node, or run `ray "
            "stop` there, then try again."
        )
    for address, ref in probes:
        free, total = ray.get(ref)
        if free < (1 - SPILL_SHARE) * total:
            logger.warning("On %s only %s are free: Ray spills no objects there.", address, _share(free, total))


def broken_nodes(seconds: float = ANSWER_SECONDS) -> list[str]:
    """The nodes that can't work, as in "on 10.0.0.7 the disk is full (…)", by the checks of `check_nodes`."""
    return _broken_nodes(_probe_nodes(seconds), seconds)


def _probe_nodes(seconds: float) -> list[tuple[str, "ray.ObjectRef[tuple[int, int]]"]]:
    """The address of each live node, and the task that ran there, or still has not after so many seconds."""
    probes = {node["NodeID"]: _probe(node) for node in _nodes()}
    if probes:  # a cluster may have only its head as yet
        ray.wait(list(probes.values()), num_returns=len(probes), timeout=seconds)
    # Nodes that have died meanwhile don't count: Ray places nothing there.
    return [(node["NodeManagerAddress"], probes[node["NodeID"]]) for node in _nodes() if node["NodeID"] in probes]


def _broken_nodes(probes: list[tuple[str, "ray.ObjectRef[tuple[int, int]]"]], seconds: float) -> list[str]:
    addresses: dict[str, list[str]] = {}
    for address, ref in probes:
        if problem := _problem(ref, seconds):
            addresses.setdefault(problem, []).append(address)
    return [f"on {', '.join(affected)} {problem}" for problem, affected in addresses.items()]


def _nodes() -> list[dict[str, Any]]:
    """The nodes that tasks are placed on."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _probe(node: dict[str, Any]) -> "ray.ObjectRef[tuple[int, int]]":
    on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    # The socket is in the folder that also gets Ray's logs and spilled objects.
    folder = str(Path(node["RayletSocketName"]).parent)
    # Without CPUs, since other work may use them all.
    task = ray.remote(num_cpus=0, max_retries=0)(_free_and_total)
    probe: ray.ObjectRef[tuple[int, int]] = task.options(scheduling_strategy=on_node).remote(folder)
    return probe


def _free_and_total(folder: str) -> tuple[int, int]:
    """Of the disk with this folder, in bytes."""
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def _problem(ref: "ray.ObjectRef[tuple[int, int]]", seconds: float) -> str | None:
    """What keeps a node from working, if anything does."""
    try:
        free, total = ray.get(ref, timeout=0)
    except WorkerCrashedError:
        return "a process died as soon as it had started, as it does where the disk is full"
    except GetTimeoutError:
        return f"no process started within {seconds:g} s, as where the disk is full"
    return f"the disk is full ({_share(free, total)} are free)" if free < FULL_BYTES else None


def _share(free: int, total: int) -> str:
    return f"{free / 2**20:,.0f} of {total / 2**20:,.0f} MiB"
