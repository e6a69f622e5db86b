"""The service on several nodes: a node that dies under load, and a registry that is slow or silent."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.hosts import Host, host_environment
from tests.support.cluster.ray_cluster import (
    BUCKET_PORT,
    PROXY_PORT,
    PYTHON,
    SERVE_PORT,
    Cluster,
    finish,
    kill,
    raw_listings,
)
from tests.support.spools import spools
from tests.support.tiny_model import FIRST, NAME, SECOND, tiny_artifact
from tests.support.waiting import until
from transforms.listings import CONTRACT

PUBLISH = """
import sys
from pathlib import Path
from registry.registry import Registry
Registry("s3://models/x").publish(Path(sys.argv[1]), sys.argv[2])
"""
LOAD = """
import http.client, json, sys, threading, time
from collections import Counter
host, port, body, callers = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def call(counts, slowest):
    connection = http.client.HTTPConnection(host, port, timeout=90)
    while not stopping.is_set():
        begun = time.monotonic()
        try:
            connection.request("POST", "/v1/predict", body)
            answer = connection.getresponse()
            answer.read()
            counts[answer.status] += 1
        except (OSError, http.client.HTTPException) as error:
            counts[repr(error)] += 1
            connection.close()
        slowest[0] = max(slowest[0], time.monotonic() - begun)
counts, slowest, stopping = Counter(), [0.0], threading.Event()
threads = [threading.Thread(target=call, args=(counts, slowest)) for _ in range(callers)]
for thread in threads: thread.start()
print("running", flush=True)
sys.stdin.readline()
stopping.set()
for thread in threads: thread.join(100)
print(json.dumps({"counts": counts, "slowest": slowest[0]}))
"""


@pytest.fixture(scope="module")
def mode(cluster: Cluster) -> Iterator[Path]:
    """The S3 API; what is written here is how it answers."""
    file = cluster.shared / "mode"
    file.write_text("open")
    line = cluster.operator.command(
        PYTHON,
        "-m",
        "tests.support.cluster.bucket",
        cluster.operator.address,
        str(BUCKET_PORT),
        str(PROXY_PORT),
        "/mnt/mode",
    )
    process = subprocess.Popen(
        line, env=host_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield file
    kill(process)


@pytest.fixture(scope="module")
def registry(cluster: Cluster, mode: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in the bucket, with two versions; the first is the champion."""
    made = cluster.operator.run(
        "curl", "-sS", "--fail", "-X", "PUT", f"http://{cluster.operator.address}:{BUCKET_PORT}/models"
    )
    assert made.returncode == 0, made.stderr
    for version in (FIRST, SECOND):
        tiny_artifact(cluster.shared / "made" / version, version)
        done = cluster.head.run(PYTHON, "-c", PUBLISH, f"/mnt/made/{version}", NAME, **cluster.environment)
        assert done.returncode == 0, done.stderr
    cluster.must("promote", f"{NAME}@{FIRST}", "--registry", "s3://models/x")
    return "s3://models/x"


@pytest.fixture(scope="module")
def service(cluster: Cluster, registry: str) -> Iterator["subprocess.Popen[str]"]:
    cluster.restore(3)
    variables = {"NIGHTPRICE_SERVE_POLL_SECONDS": "0.5", "NIGHTPRICE_SERVE_NUM_CPUS": "1"}
    options = ("--host", "0.0.0.0", "--port", SERVE_PORT, "--min-replicas", 3, "--max-replicas", 3)
    process = cluster.start("serve", "--model", f"{NAME}@champion", "--registry", registry, *options, **variables)
    # With all replicas there: a node that dies while they are deployed fails the deployment.
    assert process.stdout
    assert process.stdout.readline().startswith("Ready at "), process.communicate()
    yield process
    # Not SIGKILL: that would leave the replicas on the cluster, and their CPUs are wanted by the tests that follow.
    kill(process, signal.SIGTERM)
    until(lambda: not sum(map(replicas, cluster.workers)))


def get(cluster: Cluster, path: str) -> Any:
    done = cluster.operator.run("curl", "-sS", "--max-time", "10", f"http://{cluster.head.address}:{SERVE_PORT}{path}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {}


class Load:
    """Callers that ask without pause."""

    def __init__(self, cluster: Cluster) -> None:
        line = cluster.operator.command(
            PYTHON, "-c", LOAD, cluster.head.address, str(SERVE_PORT), json.dumps(CONTRACT.example), "4"
        )
        self._process = subprocess.Popen(
            line, env=host_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "running\n"

    def stop(self) -> Any:
        stdout, _ = self._process.communicate("\n", timeout=120)
        return json.loads(stdout)


def test_a_node_that_dies_under_load_costs_no_request(cluster: Cluster, service: "subprocess.Popen[str]") -> None:
    """Promise: what was asked of the dead node is asked again of another one; its replica starts anew elsewhere."""
    victim = next(worker for worker in cluster.workers if replicas(worker))
    forget_nothing_of(cluster.head, victim)
    load = Load(cluster)

    cluster.kill(victim)
    cluster.await_nodes()
    until(lambda: sum(map(replicas, cluster.workers)) == 3)
    answers = load.stop()

    assert set(answers["counts"]) == {"200"}
    cluster.restore(3)


def replicas(host: Host) -> int:
    return sum("ServeReplica" in line for line in host.processes())


def forget_nothing_of(host: Host, other: Host) -> None:
    """Let a host go on sending to another one that is gone, as through the routers of a cloud: nobody says that it
    is not there.
    """
    link = other.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    done = host.run("ip", "neighbor", "replace", other.address, "lladdr", link, "dev", "eth0", "nud", "permanent")
    assert done.returncode == 0, done.stderr


def test_a_silent_registry_changes_nothing_for_callers(
    cluster: Cluster, service: "subprocess.Popen[str]", mode: Path, registry: str
) -> None:
    """Promise: the service answers with the model it has, says that the registry is unreachable, and follows when
    it is back.
    """
    load = Load(cluster)
    mode.write_text("silent")
    told = until(lambda: found if (found := last_swap(cluster))["result"] == "unreachable" else None)
    mode.write_text("open")
    cluster.must("promote", f"{NAME}@{SECOND}", "--registry", registry)
    until(lambda: get(cluster, "/v1/model").get("version") == SECOND)
    answers = load.stop()

    assert "s3://models/x could not be read: It does not answer." in told["error"]
    assert set(answers["counts"]) == {"200"}


def last_swap(cluster: Cluster) -> Any:
    return get(cluster, "/v1/model").get("last_swap") or {"result": None}


def test_a_silent_registry_is_one_sentence_within_a_minute(cluster: Cluster, mode: Path, registry: str) -> None:
    """Promise: commands end, with exit code 1 and what to do."""
    mode.write_text("silent")
    done = cluster.run("models", "--registry", registry)
    mode.write_text("open")

    assert done.code == 1
    assert done.error() == f"{registry} could not be read: It does not answer. Check the address, or try again."


def test_a_slow_registry_costs_time_only(cluster: Cluster, mode: Path, registry: str) -> None:
    """Promise: slow answers are waited for; a version is there whole or not at all."""
    mode.write_text("slow")
    result = cluster.must("models", "--registry", registry)
    mode.write_text("open")

    assert [version["version"] for version in result["versions"]] == [SECOND, FIRST]


def test_a_registry_that_falls_silent_while_a_model_is_published_holds_no_half_of_it(
    cluster: Cluster, mode: Path, registry: str
) -> None:
    """Promise: training fails with one sentence within a minute of the silence; the version is not there; the next
    run publishes.
    """
    raw_listings(cluster.shared / "few", 3_000, 2)
    cluster.must("process", "--source", "/mnt/few", "--sink", "/mnt/few-dataset")
    settings = {"NIGHTPRICE_XGBOOST__ROUNDS": "5"}
    train = ("train", "--data", "/mnt/few-dataset", "--registry", registry)
    before = spools()
    run = cluster.start(*train, **settings)
    # The workers have their rows: publishing comes next.
    until(lambda: spools() - before, run)
    mode.write_text("silent")
    done = finish(run)
    mode.write_text("open")

    # Publishing begins with a look whether the version is there.
    assert done.error() == f"{registry} could not be read: It does not answer. Check the address, or try again."
    there = {version["version"] for version in cluster.must("models", "--registry", registry)["versions"]}
    assert there == {FIRST, SECOND}
    assert cluster.must(*train, **settings)["model"]
