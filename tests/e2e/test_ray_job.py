"""The pipeline as a job of a running cluster, with the repository as the job's working directory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.generate import generate

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address of a cluster of its own, started as an operator would, in its own process group."""
    port, dashboard, client, agent = free_ports(4)
    # Short: the paths of Ray's sockets must stay below 108 characters.
    home = Path(f"/tmp/np{os.getpid()}")
    head = [RAY, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    head += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={home}", "--num-cpus=4", "--object-store-memory=150000000"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    log = tmp_path_factory.mktemp("ray") / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(head, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd="/", start_new_session=True)
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def submit(cluster: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`ray job submit --working-dir . -- python -m pipeline …`, as the README has it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    line = [RAY, "job", "submit", "--address", cluster, "--working-dir", ".", "--", sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_process_runs_as_a_job_and_joins_its_cluster(cluster: str, tmp_path: Path) -> None:
    generate(1_000, tmp_path / "raw", shards=2)

    done = submit(cluster, "process", "--source", tmp_path / "raw", "--sink", tmp_path / "dataset", "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["rows"]["read"] == 1_000
    assert f'"version": "{manifest["version"]}"' in done.stdout
    assert "Joining Ray" in done.stdout
    failed = submit(cluster, "process", "--source", tmp_path / "nothing", "--sink", tmp_path / "dataset")
    assert failed.returncode == 1
    assert "Error: " in failed.stdout
