"""`train` with two workers on different nodes, one of which dies or runs full; and more workers than the cluster
has room for.
"""

import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.hosts import Host
from tests.support.cluster.ray_cluster import Cluster, finish, full_disk, kill, raw_listings
from tests.support.spools import spools
from tests.support.waiting import until

# A worker wants more than half of a node: two of them never share one.
APART = {
    "NIGHTPRICE_TRAINING_CPUS": "1.5",
    "NIGHTPRICE_REGISTRY": "/mnt/models",
}
# So many that the run is still going on whenever it is looked at.
ENDLESS = {"NIGHTPRICE_XGBOOST__ROUNDS": "100000", "NIGHTPRICE_XGBOOST__EARLY_STOPPING_ROUNDS": "100000"}
ROUNDS = {
    "NIGHTPRICE_XGBOOST__ROUNDS": "200",
    "NIGHTPRICE_XGBOOST__EARLY_STOPPING_ROUNDS": "200",
    "NIGHTPRICE_XGBOOST__MAX_DEPTH": "4",
}


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


def begun(cluster: Cluster, dataset: str, **settings: str) -> tuple["subprocess.Popen[str]", list[Host]]:
    """A run with two workers that have rows already; and the hosts of the workers."""
    run = cluster.start("train", "--data", dataset, "--workers", "2", "--json", **APART, **settings)
    return run, until(
        lambda: found if len(found := [host for host in cluster.workers if spools(cluster.proc(host))]) == 2 else None,
        run,
    )


def versions(cluster: Cluster) -> set[Path]:
    return {manifest.parent for manifest in (cluster.shared / "models/listing-price/versions").glob("*/manifest.json")}


def test_a_node_that_dies_costs_a_new_start_and_not_the_run(cluster: Cluster, dataset: str, undisturbed: Any) -> None:
    """Promise: the workers start again from the beginning, on the nodes that are left, and end with the same model."""
    run, hosts = begun(cluster, dataset, **ROUNDS)

    cluster.kill(hosts[1])
    result = finish(run).result()

    assert result["metrics"] == undisturbed["metrics"]
    assert {path.name for path in versions(cluster)} == {
        f"{one['model'].partition('@')[2]}" for one in (result, undisturbed)
    }
    cluster.await_nodes()


def test_a_disk_that_fills_costs_a_new_start_and_not_the_run(cluster: Cluster, dataset: str, undisturbed: Any) -> None:
    """Promise: what can't be written there is tried elsewhere, as long as there are nodes with room."""
    cluster.restore(4)
    run, hosts = begun(cluster, dataset, **ROUNDS)

    with full_disk(hosts[1]):
        result = finish(run).result()

    assert result["metrics"] == undisturbed["metrics"]


def test_disks_that_fill_everywhere_are_named(cluster: Cluster, dataset: str) -> None:
    """Promise: a bounded number of starts, an error that names the nodes, exit code 1, no version."""
    cluster.restore(3)
    before = versions(cluster)

    def controlled() -> bool:
        return any("TrainController" in line for line in cluster.head.processes())

    # That of the run before is gone.
    until(lambda: not controlled())
    run = cluster.start("train", "--data", dataset, "--workers", "2", **APART, **ROUNDS)
    until(controlled, run)

    with ExitStack() as disks:
        for worker in cluster.workers[1:]:
            disks.enter_context(full_disk(worker))
        done = finish(run)

    assert done.code == 1
    happened = (
        "could not start again: One of the worker actors failed to initialize"
        "|failed on worker .: the processes that read its rows died, .*"
    )
    found = (
        r"On 10\.77\.\S+ .*(the disk is full|a process died as soon as it had started|no process started within 90 s).*"
    )
    assert re.fullmatch(rf"Training ({happened})\. {found}\. Nothing was published\.", done.error()), done.error()
    assert versions(cluster) == before


def test_a_run_that_nobody_can_read_for_any_more_ends_with_what_is_there(cluster: Cluster, dataset: str) -> None:
    """Promise: workers that have taken the last CPUs, after a node died, wait for `resource_wait_seconds` and not
    for ever.
    """
    for spare in cluster.workers[3:]:
        cluster.kill(spare)
    cluster.restore(3)
    before = versions(cluster)
    wait = {"NIGHTPRICE_RESOURCE_WAIT_SECONDS": "20"}
    run, hosts = begun(cluster, dataset, **ENDLESS, **wait)

    cluster.kill(hosts[1])
    done = finish(run)

    assert done.code == 1
    said = (
        r"Training stands still: for 20 s a worker has not started, or no rows have reached it\. "
        "Now the cluster has 4 CPUs, 2 at most on"
    )
    assert re.match(said, done.error()), done.error()
    assert versions(cluster) == before
    until(lambda: not [line for worker in cluster.workers for line in worker.processes() if "RayTrainWorker" in line])


def test_a_driver_that_dies_publishes_nothing(cluster: Cluster, dataset: str, undisturbed: Any) -> None:
    """Promise: no version, no worker that goes on training, and the next run has the cluster to itself."""
    cluster.restore(3)
    before = versions(cluster)
    run, _ = begun(cluster, dataset, **ENDLESS)

    kill(run)

    until(lambda: not [line for worker in cluster.workers for line in worker.processes() if "RayTrainWorker" in line])
    assert versions(cluster) == before


def test_a_run_that_finds_no_room_says_what_it_wants_and_what_is_there(
    cluster: Cluster, dataset: str, undisturbed: Any
) -> None:
    """Promise: a word after five seconds, an error after `resource_wait_seconds`, exit code 1; nothing is left
    waiting in the cluster.
    """
    cluster.restore(3)
    wait = {
        "NIGHTPRICE_RESOURCE_WAIT_SECONDS": "6",
        "NIGHTPRICE_REGISTRY": "/mnt/models",
    }

    done = cluster.run("train", "--data", dataset, "--workers", "50", **wait)

    assert done.code == 1
    wanted = "51 CPUs: 1 for each of 50 training workers, and one to read their rows"
    said = r"the cluster has 6 CPUs, 2 at most on one node, and \S+ of them free\."
    assert re.search(rf"Waiting up to 6 s for {wanted}\. Now {said}", done.stderr)
    fix = r"Give fewer --workers, set training_cpus lower, or add nodes\."
    assert re.fullmatch(rf"Nothing was started: it needs {wanted}; but after 6 s {said} {fix}", done.error())
    # Nothing of it is left waiting for CPUs.
    assert cluster.must("evaluate", "--model", undisturbed["model"], "--data", dataset, **wait)["rows"]


def test_a_run_that_finds_no_room_again_tries_five_times(cluster: Cluster, dataset: str) -> None:
    """Promise: workers for which too few nodes are left are given up after five tries, with what is there."""
    cluster.restore(3)
    before = versions(cluster)
    # Ray Train gives each try a minute.
    run, hosts = begun(cluster, dataset, **ENDLESS, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="5")

    for host in hosts:
        cluster.kill(host)
    done = finish(run)

    assert done.code == 1
    assert re.fullmatch(
        r"Training could not start again: .*\. Now the cluster has 2 CPUs, .* Nothing was published\.", done.error()
    ), done.error()
    assert versions(cluster) == before
