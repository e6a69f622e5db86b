"""Object stores that spill."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster.rig import Cluster, raw_listings, until
from tests.e2e.cluster.test_process import ids, live

HOG = """
import sys, ray
import numpy as np
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
def fill():
    return np.zeros(20_000_000, np.uint8)
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
held = [ray.remote(num_cpus=0)(fill).options(label_selector={"ray.io/node-id": node}).remote() for node in nodes for _ in range(6)]
ray.wait(held, num_returns=len(held), fetch_local=False)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def raw(cluster: Cluster) -> Path:
    cluster.restore(3)
    return raw_listings(cluster.shared / "stored", 6_000, 4)


def spilled(cluster: Cluster) -> list[Path]:
    return [file for worker in cluster.workers for file in cluster.tmp(worker).glob("ray/session_*/ray_spilled_objects*/*")]


@contextmanager
def full_object_stores(cluster: Cluster) -> Iterator[None]:
    """Somebody else's job, whose objects are half as large again as the object store of every node."""
    hog = cluster.python("-c", HOG, cluster.address)
    assert hog.stdout
    until(lambda: hog.stdout and hog.stdout.readline() == "held\n", hog)
    try:
        yield
    finally:
        hog.communicate("\n", timeout=60)


def test_object_stores_that_spill_cost_time_only_and_are_cleared(cluster: Cluster, raw: Path) -> None:
    """Promise: a run among full object stores ends whole; what was spilled to the disks goes with the jobs that owned it."""
    with full_object_stores(cluster):
        assert len(spilled(cluster)) >= len(cluster.workers)
        manifest = cluster.must("process", "--source", "/mnt/stored", "--sink", "/mnt/among-full-stores")
    assert manifest["rows"] == {"read": 6_000, "accepted": 6_000, "rejected": 0}
    assert ids(live(cluster.shared / "among-full-stores") / "accepted") == ids(raw)
    until(lambda: not spilled(cluster))
