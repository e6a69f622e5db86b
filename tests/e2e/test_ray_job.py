"""The pipeline's steps as jobs of a running cluster with token authentication, and what its dashboard then says of them."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.generate import generate

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A cluster of one node, and what its callers need."""

    dashboard: str
    token: str

    def submit(self, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`python deploy/submit.py …`"""
        hidden = ("RAY_ADDRESS", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_API_SERVER_ADDRESS": self.dashboard, **variables}
        line = [sys.executable, str(ROOT / "deploy/submit.py"), *map(str, arguments)]
        return subprocess.run(line, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)

    def get(self, path: str) -> Any:
        """What the dashboard's API answers."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def job(self, submission_id: str) -> Any:
        return next(job for job in self.get("/api/jobs/") if job["submission_id"] == submission_id)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own, started as an operator would, in its own process group."""
    port, dashboard, client, agent = free_ports(4)
    # Short: the paths of Ray's sockets must stay below 108 characters.
    home = Path(f"/tmp/np{os.getpid()}")
    head = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={home}", "--num-cpus=4", "--object-store-memory=150000000"]
    token = secrets.token_hex(32)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # The jobs' `python` is the one that the node's environment finds.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(head, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd="/", start_new_session=True)
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
        yield Cluster(f"http://127.0.0.1:{dashboard}", token)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def processed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A folder with a dataset that a job has made, and what its submission said."""
    folder = tmp_path_factory.mktemp("job")
    generate(1_000, folder / "raw", shards=2)
    return folder, cluster.submit("--id", "first", "process", "--source", folder / "raw", "--sink", folder / "dataset")


def test_process_runs_as_a_job_and_joins_its_cluster(cluster: Cluster, processed: Any) -> None:
    folder, done = processed

    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((folder / "dataset" / "manifest.json").read_text())
    assert manifest["rows"]["read"] == 1_000
    assert f'"version": "{manifest["version"]}"' in done.stdout
    assert "Joining Ray" in done.stdout
    assert cluster.job("first")["metadata"] | {"code": "", "submitted_by": ""} == {
        "job_name": "nightprice process",
        "step": "process",
        "code": "",
        "submitted_by": "",
    }


def test_the_same_id_is_followed_and_not_started_again(cluster: Cluster, processed: Any) -> None:
    folder, _ = processed
    before = (folder / "dataset" / "manifest.json").read_text()

    again = cluster.submit("--id", "first", "process", "--source", folder / "raw", "--sink", folder / "dataset")

    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(before)["version"] in again.stdout
    assert (folder / "dataset" / "manifest.json").read_text() == before


def test_a_step_ends_with_its_own_exit_code(cluster: Cluster, processed: Any) -> None:
    folder, _ = processed

    refused = cluster.submit("process", "--source", folder / "raw", "--sink", folder / "other", NIGHTPRICE_MAX_REJECTED="0")

    assert refused.returncode == 3
    assert "more than the 0.0% allowed" in refused.stdout


def test_a_wrong_token_starts_nothing_and_says_what_to_do(cluster: Cluster) -> None:
    done = cluster.submit("process", "--source", "raw", "--sink", "dataset", RAY_AUTH_TOKEN="wrong" * 10)

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {cluster.dashboard} takes no jobs: ")
    assert "bring the cluster's token" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_address_that_is_given_counts_and_not_that_of_the_environment(cluster: Cluster) -> None:
    (port,) = free_ports(1)

    done = cluster.submit("--address", f"http://127.0.0.1:{port}", "promote", "listing-price@champion")

    assert done.returncode == 1
    assert "Failed to connect" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_dashboard_shows_datasets_and_trainings_by_name(cluster: Cluster, processed: Any) -> None:
    folder, _ = processed
    few = {"NIGHTPRICE_XGBOOST__ROUNDS": "3", "NIGHTPRICE_HOLDOUT_SHARE": "0.3"}

    trained = cluster.submit("--id", "second", "train", "--data", folder / "dataset", "--registry", folder / "models", **few)

    assert trained.returncode == 0, trained.stdout + trained.stderr
    shown = {job: cluster.get(f"/api/data/datasets/{cluster.job(job)['job_id']}")["datasets"] for job in ("first", "second")}
    names = {job: sorted(found["dataset"].partition("_")[0] for found in datasets) for job, datasets in shown.items()}
    assert names == {"first": ["process"], "second": ["evaluate", "learn", "train"]}
    operators = [operator["operator"] for datasets in shown.values() for found in datasets for operator in found["operators"]]
    assert [name for name in operators if "lambda" in name] == []
    (run,) = cluster.get("/api/train/v2/runs/v1")["train_runs"]
    assert run["name"].startswith("listing-price-")
    assert run["name"].endswith("-xgboost")
    assert run["status"] == "FINISHED"
