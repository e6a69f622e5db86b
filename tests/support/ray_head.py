"""A Ray cluster of one node with token authentication, on free ports, as an operator would start it."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_ports

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A cluster of one node, and what its callers need."""

    dashboard: str
    token: str

    def submit(self, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`python deploy/submit.py …`"""
        return self.run(sys.executable, ROOT / "deploy/submit.py", *arguments, **variables)

    def run(self, *line: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A command with what it needs to find the cluster."""
        hidden = ("RAY_ADDRESS", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            **variables,
        }
        return subprocess.run(
            [*map(str, line)], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def get(self, path: str) -> Any:
        """What the dashboard's API answers."""
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def job(self, submission_id: str) -> Any:
        return next(job for job in self.get("/api/jobs/") if job["submission_id"] == submission_id)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own, started as an operator would, in its own process group."""
    port, dashboard, client, agent = free_ports(4)
    # Short: the paths of Ray's sockets must stay below 108 characters.
    home = Path(f"/tmp/np{os.getpid()}")
    head = [
        RAY,
        "start",
        "--head",
        "--block",
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
    ]
    head += [
        f"--dashboard-agent-listen-port={agent}",
        f"--temp-dir={home}",
        "--num-cpus=4",
        "--object-store-memory=150000000",
    ]
    token = secrets.token_hex(32)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # The jobs' `python` is the one that the node's environment finds.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            head, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd="/", start_new_session=True
        )
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield Cluster(f"http://127.0.0.1:{dashboard}", token)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)
