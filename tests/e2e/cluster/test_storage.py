"""Object stores that spill, and disks of nodes that are full."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cluster.gated_runs import SHARDS, folder_of_gate, ids, live, waiting_at
from tests.support.cluster.ray_cluster import Cluster, finish, full_disk, raw_listings
from tests.support.waiting import until

HOG = """
import sys, ray
import numpy as np
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
def fill():
    return np.zeros(20_000_000, np.uint8)
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
on = lambda node: ray.remote(num_cpus=0)(fill).options(label_selector={"ray.io/node-id": node})
held = [on(node).remote() for node in nodes for _ in range(6)]
ray.wait(held, num_returns=len(held), fetch_local=False)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def raw(cluster: Cluster) -> Path:
    cluster.restore(3)
    return raw_listings(cluster.shared / "stored", 6_000, SHARDS)


def spilled(cluster: Cluster) -> list[Path]:
    return [
        file for worker in cluster.workers for file in cluster.tmp(worker).glob("ray/session_*/ray_spilled_objects*/*")
    ]


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


def test_object_stores_that_spill_cost_time_only(cluster: Cluster, raw: Path) -> None:
    """Promise: a run among full object stores ends whole."""
    with full_object_stores(cluster):
        assert len(spilled(cluster)) >= len(cluster.workers)
        manifest = cluster.must("process", "--source", "/mnt/stored", "--sink", "/mnt/among-full-stores")
    assert manifest["rows"] == {"read": 6_000, "accepted": 6_000, "rejected": 0}
    assert ids(live(cluster.shared / "among-full-stores") / "accepted") == ids(raw)


def test_a_full_disk_of_a_node_is_one_sentence_and_nothing_is_started(cluster: Cluster, raw: Path) -> None:
    """Promise: commands end with exit code 1 and name the node; what was live stays live; with space again the same
    commands work.
    """
    cluster.restore(3)
    sink, victim = cluster.shared / "beside-full", cluster.workers[-1]
    process = ("process", "--source", "/mnt/stored", "--sink", "/mnt/beside-full")
    train = ("train", "--data", "/mnt/beside-full", "--registry", "/mnt/models-full")
    settings = {"NIGHTPRICE_XGBOOST__ROUNDS": "5"}
    before = cluster.must(*process)

    with full_disk(victim):
        failed = [cluster.run(*process), cluster.run(*train, **settings)]

    found = (
        rf"on {victim.address} "
        "(a process died as soon as it had started|no process started within 90 s|the disk is full).*"
    )
    fix = "Free some space on the disk of that node, or run `ray stop` there, then try again."
    assert [done.code for done in failed] == [1, 1]
    for done in failed:
        assert re.fullmatch(rf"Nothing was started: {found}\. {fix}", done.error()), done.error()
    assert live(sink).name == before["version"]
    assert not (cluster.shared / "models-full").exists()
    assert live(sink).name == before["version"] != cluster.must(*process)["version"] == live(sink).name
    assert cluster.must(*train, **settings)["model"]


def test_a_disk_that_fills_during_a_run_costs_no_row(cluster: Cluster, raw: Path) -> None:
    """Promise: workers that run go on, since a run of `process` writes nothing but its sink."""
    cluster.restore(3)
    sink, gate = cluster.shared / "filling", folder_of_gate(cluster.shared / "gate-filling", SHARDS // 2)
    run = cluster.gated(gate, "process", "--source", "gated:///mnt/stored", "--sink", "/mnt/filling")
    address = until(lambda: waiting_at(sink, gate), run)

    with full_disk(next(worker for worker in cluster.workers if worker.address == address)):
        (gate / "open").touch()
        manifest = finish(run).result()

    assert manifest["rows"] == {"read": 6_000, "accepted": 6_000, "rejected": 0}
    assert ids(live(sink) / "accepted") == ids(raw)
