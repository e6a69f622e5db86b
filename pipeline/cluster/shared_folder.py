"""Whether what a run writes to a folder ends in one place: not in a job's copy, nor on every node's own disk."""

import uuid
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nightprice.address import Address
from nightprice.errors import UsageError
from nightprice.job_folder import check_outlives_job


def check_sink(address: Address) -> None:
    """Raise UsageError for a local place to write to that is lost with this job, or that other nodes do not see.

    Nodes that join later can't be asked.
    """
    folder = address.local
    if folder is None:
        return
    check_outlives_job(folder, address.display)
    if blind := _nodes_without(folder):
        raise UsageError(
            f'"{address}" is a folder of this machine that {", ".join(blind)} does not see: each node would write to '
            "its own disk. Name a bucket, a database, or a folder that all nodes share."
        )


def _nodes_without(folder: Path) -> list[str]:
    """The addresses of other nodes with CPUs that do not see a new file in this folder, or the first above it that
    exists.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] != here]
    if not nodes:
        return []
    above = next(path for path in (folder, *folder.parents) if path.is_dir())
    mark = above / f".nightprice-{uuid.uuid4().hex}"
    mark.touch()
    try:
        seen = ray.get([_ask(node["NodeID"], str(mark)) for node in nodes])
    finally:
        mark.unlink()
    return [node["NodeManagerAddress"] for node, sees in zip(nodes, seen, strict=True) if not sees]


def _ask(node: str, path: str) -> "ray.ObjectRef[bool]":
    # Without CPUs, since other work may use them all.
    task = ray.remote(num_cpus=0)(_exists)
    answer: ray.ObjectRef[bool] = task.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    ).remote(path)
    return answer


def _exists(path: str) -> bool:
    return Path(path).exists()
