"""`train` with two workers on different nodes, one of which dies; and more workers than the cluster has room for."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.rig import Cluster, finish, kill, raw_listings, until

# A worker wants more than half of a node: two of them never share one.
APART = {"NIGHTPRICE_TRAINING_CPUS": "1.5", "NIGHTPRICE_TRAINING_STORAGE": "/mnt/training", "NIGHTPRICE_REGISTRY": "/mnt/models"}
# So many that the run is still going on whenever it is looked at.
ENDLESS = {"NIGHTPRICE_XGBOOST__ROUNDS": "100000", "NIGHTPRICE_XGBOOST__EARLY_STOPPING_ROUNDS": "100000"}
ROUNDS = {"NIGHTPRICE_XGBOOST__ROUNDS": "60", "NIGHTPRICE_XGBOOST__MAX_DEPTH": "4"}


@pytest.fixture(scope="module")
def dataset(cluster: Cluster) -> str:
    # Two for the workers, one that dies, and one that reads for them.
    cluster.restore(4)
    raw_listings(cluster.shared / "listings", 6_000, 4)
    cluster.must("process", "--source", "/mnt/listings", "--sink", "/mnt/dataset")
    return "/mnt/dataset"


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, dataset: str) -> Any:
    """The result of a run in which nobody dies."""
    return cluster.must("train", "--data", dataset, "--workers", "2", **APART, **ROUNDS)


def spools(cluster: Cluster) -> list[str]:
    """The addresses of the nodes on which a worker has its share of the rows."""
    return [worker.address for worker in cluster.workers if list(cluster.tmp(worker).glob("tmp*/training.f32"))]


def versions(cluster: Cluster) -> list[Path]:
    return [path for path in (cluster.shared / "models/listing-price/versions").iterdir() if (path / "manifest.json").exists()]


def test_a_node_that_dies_costs_a_new_start_and_not_the_run(cluster: Cluster, dataset: str, undisturbed: Any) -> None:
    """Promise: the workers start again from the beginning, on the nodes that are left, and end with the same model."""
    run = cluster.start("train", "--data", dataset, "--workers", "2", "--json", **APART, **ROUNDS)
    nodes = until(lambda: found if len(found := spools(cluster)) == 2 else None, run)

    cluster.kill(next(worker for worker in cluster.workers if worker.address == nodes[1]))
    result = finish(run).result()

    assert result["metrics"] == undisturbed["metrics"]
    assert {path.name for path in versions(cluster)} == {f"{one['model'].partition('@')[2]}" for one in (result, undisturbed)}
    cluster.await_nodes()


def test_a_driver_that_dies_publishes_nothing(cluster: Cluster, dataset: str, undisturbed: Any) -> None:
    """Promise: no version, no worker that goes on training, and the next run has the cluster to itself."""
    cluster.restore(3)
    before = versions(cluster)
    run = cluster.start("train", "--data", dataset, "--workers", "2", **APART, **ENDLESS)
    until(lambda: len(spools(cluster)) == 2, run)

    kill(run)

    until(lambda: not [line for worker in cluster.workers for line in worker.processes() if "RayTrainWorker" in line])
    assert versions(cluster) == before


def test_a_run_that_finds_no_room_says_what_it_wants_and_what_is_there(cluster: Cluster, dataset: str) -> None:
    """Promise: a word after five seconds, an error after `resource_wait_seconds`, exit code 1; nothing is left waiting in the cluster."""
    cluster.restore(3)
    wait = {"NIGHTPRICE_RESOURCE_WAIT_SECONDS": "6", "NIGHTPRICE_TRAINING_STORAGE": "/mnt/training", "NIGHTPRICE_REGISTRY": "/mnt/models"}

    done = cluster.run("train", "--data", dataset, "--workers", "50", **wait)

    assert done.code == 1
    wanted = "51 CPUs: 1 for each of 50 training workers, and one to read their rows"
    said = r"the cluster has 6 CPUs, 2 at most on one node, and \S+ of them free\."
    assert re.search(rf"Waiting up to 6 s for {wanted}\. Now {said}", done.stderr)
    mend = r"Give fewer --workers, set training_cpus lower, or add nodes\."
    assert re.fullmatch(rf"Nothing was started: it needs {wanted}; but after 6 s {said} {mend}", done.error())
    # Nothing of it is left waiting for CPUs.
    ref = f"listing-price@{versions(cluster)[0].name}"
    assert cluster.must("evaluate", "--model", ref, "--data", dataset, **wait)["rows"]
