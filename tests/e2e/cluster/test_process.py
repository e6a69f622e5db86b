"""`process` and `predict` on several nodes while nodes and drivers die."""

import subprocess
from pathlib import Path

import pytest

from registry.registry import Registry
from tests.support.cluster.gated_runs import SHARDS, folder_of_gate, ids, live, waiting_at
from tests.support.cluster.ray_cluster import Cluster, finish, kill, raw_listings
from tests.support.tiny_model import FIRST, NAME, tiny_artifact
from tests.support.waiting import until

ROWS = 12_000


@pytest.fixture(scope="module")
def raw(cluster: Cluster) -> Path:
    """Files that are a task each."""
    cluster.restore(3)
    return raw_listings(cluster.shared / "raw", ROWS, SHARDS)


def start(cluster: Cluster, sink: str, gate: Path) -> "subprocess.Popen[str]":
    """A run whose second half of tasks waits at a gate."""
    return cluster.gated(gate, "process", "--source", "gated:///mnt/raw", "--sink", f"/mnt/{sink}")


def test_a_node_that_dies_costs_no_row_and_doubles_none(cluster: Cluster, raw: Path) -> None:
    """Promise: what ran on a dead node runs again elsewhere; every row is there once; only whole files are
    published.
    """
    sink, gate = cluster.shared / "node", folder_of_gate(cluster.shared / "gate-node", SHARDS // 2)
    run = start(cluster, "node", gate)
    address = until(lambda: waiting_at(sink, gate), run)

    cluster.kill(next(worker for worker in cluster.workers if worker.address == address))
    (gate / "open").touch()
    manifest = finish(run).result()

    assert manifest["rows"] == {"read": ROWS, "accepted": ROWS, "rejected": 0}
    assert ids(live(sink) / "accepted") == ids(raw)
    assert [path.name for path in sink.iterdir() if path.name != "versions"] == ["manifest.json"]
    assert len(list((live(sink) / "accepted").iterdir())) == SHARDS
    cluster.await_nodes()


def test_a_node_that_dies_while_it_scores_costs_no_row_and_doubles_none(cluster: Cluster, raw: Path) -> None:
    """Promise: the same for `predict`, whose blocks are scored anew elsewhere."""
    cluster.restore(3)
    sink, gate = cluster.shared / "scored", folder_of_gate(cluster.shared / "gate-scored", SHARDS // 2)
    Registry(str(cluster.shared / "scoring")).publish(tiny_artifact(cluster.shared / "scoring-made"), NAME)
    model = ("--model", f"{NAME}@{FIRST}", "--registry", "/mnt/scoring")
    run = cluster.gated(gate, "predict", *model, "--source", "gated:///mnt/raw", "--sink", "/mnt/scored")
    until(lambda: waiting_at(sink, gate), run)

    cluster.kill(next(each for each in cluster.workers if any("score_block" in line for line in each.processes())))
    (gate / "open").touch()
    manifest = finish(run).result()

    assert manifest["rows"] == {"read": ROWS, "accepted": ROWS, "rejected": 0}
    assert ids(live(sink) / "accepted") == ids(raw)
    cluster.await_nodes()


def test_a_driver_that_dies_leaves_what_was_live_and_the_next_run_works(cluster: Cluster, raw: Path) -> None:
    """Promise: a run that dies publishes nothing, holds no CPU of the cluster, and is simply started again."""
    sink, gate = cluster.shared / "driver", folder_of_gate(cluster.shared / "gate-driver", SHARDS // 2)
    cluster.restore(3)
    before = cluster.must("process", "--source", "/mnt/raw/*-00000*", "--sink", "/mnt/driver")
    run = start(cluster, "driver", gate)
    until(lambda: waiting_at(sink, gate), run)

    kill(run)

    assert live(sink).name == before["version"]
    until(lambda: not [line for worker in cluster.workers for line in worker.processes() if "MapBatches" in line])
    after = cluster.must("process", "--source", "/mnt/raw", "--sink", "/mnt/driver")
    assert live(sink).name == after["version"]
    assert ids(live(sink) / "accepted") == ids(raw)


def test_two_runs_at_once_on_one_sink_both_end_whole(cluster: Cluster, raw: Path) -> None:
    """Promise: each run writes a version of its own; the one that ends last is live; the other lies whole beside it."""
    sink = cluster.shared / "twice"
    cluster.restore(3)
    gates = [folder_of_gate(cluster.shared / f"gate-{name}", SHARDS // 2) for name in ("one", "two")]
    runs = [start(cluster, "twice", gate) for gate in gates]
    until(lambda: all(any((gate / "waiting").iterdir()) for gate in gates) and len(list(sink.glob("versions/*"))) == 2)

    for gate in gates:
        (gate / "open").touch()
    manifests = [finish(run).result() for run in runs]

    versions = {manifest["version"] for manifest in manifests}
    assert len(versions) == 2
    assert live(sink).name in versions
    assert all(ids(sink / "versions" / version / "accepted") == ids(raw) for version in versions)
