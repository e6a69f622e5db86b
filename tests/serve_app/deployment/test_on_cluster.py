"""The application on a cluster that others use as well: by `serve deploy`, `serve run`, and `nightprice serve`
joining it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from registry.registry import Registry
from tests.support.cluster.config import node_env
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.serving.models import registry_with
from tests.support.serving.requests import EXAMPLE
from tests.support.serving.service import Service, launch, load_on, replicas_of
from tests.support.tiny_model import FIRST, NAME, tiny_artifact
from tests.support.waiting import await_that

# Ray hands the counts of replicas on every 10 s, which is long for a test.
QUICK = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.2",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
}
OTHER = """
from tests.support.serving.requests import EXAMPLE
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Other:
    def __call__(self, request):
        return "still here"

app = Other.bind()
"""


@dataclass(frozen=True)
class Cluster:
    """A head node of Ray, started as cluster.yaml does."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    folder: Path
    port: int

    def run(self, *command: str, expect: int = 0) -> str:
        """A command beside `python`, to its end; what it said."""
        done = subprocess.run(
            self._arguments(command), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._arguments(command), env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL
        )

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body; 0 while nobody listens."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30)
        except httpx.TransportError:
            return 0, None
        return answer.status_code, answer.text

    def await_get(self, path: str, condition: Callable[[tuple[int, Any]], bool]) -> Any:
        return await_that(lambda: self.get(path), condition, 120)[1]

    def applications(self) -> dict[str, str]:
        # What `serve status` asks, without seconds of Python's start.
        status = httpx.get(f"{self.environment['RAY_DASHBOARD_ADDRESS']}/api/serve/applications/", timeout=30).json()
        return {name: found["status"] for name, found in status["applications"].items()}

    def _arguments(self, command: tuple[str, ...]) -> list[str]:
        return [str(Path(sys.executable).parent / command[0]), *command[1:]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, gcs, dashboard = tmp_path_factory.mktemp("cluster"), free_port(), free_port()
    (folder / "other.py").write_text(OTHER)
    environment = (
        os.environ | node_env() | QUICK | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "RAY_AUTH_MODE": "disabled"}
    )
    environment |= {"RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}", "RAY_ADDRESS": f"127.0.0.1:{gcs}"}
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    head = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--num-cpus=4",
        "--object-store-memory=100000000",
        *ports,
    ]
    alone = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(head, env=alone, cwd=folder, stdout=subprocess.DEVNULL, text=True)
    try:
        await_that(
            lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{dashboard}/api/serve/applications/"),
            bool,
            120,
        )
        assert process.poll() is None
        yield Cluster(process, environment, folder, free_port())
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        for one in [*below, psutil.Process(process.pid)]:
            one.kill()
        psutil.wait_procs(below, 20)
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def test_serve_deploy_gives_the_service_with_the_options_of_its_file(cluster: Cluster) -> None:
    config = yaml.safe_load((ROOT / "deploy/serve_config.yaml").read_text())
    registry = registry_with(cluster.folder, [FIRST], boosted=True)
    config["http_options"] = {"host": "127.0.0.1", "port": cluster.port}
    config["applications"][0]["args"] |= {"registry": registry.uri, "num_cpus": 0.1, "max_rows": 2, "max_replicas": 2}
    config["applications"][0]["args"] |= {"upscale_delay_s": 0.2, "downscale_delay_s": 0.5}
    (cluster.folder / "config.yaml").write_text(yaml.safe_dump(config))

    cluster.run("serve", "deploy", "config.yaml")

    ready = cluster.await_get("/readyz", lambda found: found[0] == 200)
    assert json.loads(ready)["model"] == f"{NAME}@{FIRST}"
    many = httpx.post(f"http://127.0.0.1:{cluster.port}/v1/predict/batch", json={"listings": [EXAMPLE] * 3})
    assert (many.status_code, "at most 2 are allowed" in many.text) == (413, True)


def test_replicas_come_and_go_with_the_load(cluster: Cluster) -> None:
    service = Service(cluster.process, cluster.port)
    assert len(replicas_of(cluster.process.pid)) == 1

    with load_on(service, callers=12) as load:
        await_that(lambda: len(replicas_of(cluster.process.pid)), lambda count: count == 2, 120)
        load.await_more(100)
    await_that(lambda: len(replicas_of(cluster.process.pid)), lambda count: count == 1, 120)

    assert {status for status, _ in load.answers} == {200}


def test_nightprice_serve_does_not_take_the_place_of_what_is_deployed(cluster: Cluster) -> None:
    deployed = str(cluster.folder / "registry")

    said = cluster.run("nightprice", "serve", "--registry", deployed, "--port", str(cluster.port), expect=1)

    assert 'The cluster serves the application "nightprice" already' in said
    assert cluster.get("/readyz")[0] == 200


def test_of_a_cluster_that_was_joined_only_our_application_goes(cluster: Cluster) -> None:
    cluster.run("serve", "config")
    cluster.run("serve", "shutdown", "--yes")
    await_that(cluster.applications, lambda found: not found, 60)
    other = cluster.start("serve", "run", "other:app", "--name", "other", "--route-prefix", "/other", "--non-blocking")
    other.wait(120)
    port = 8000
    registry = str(cluster.folder / "registry")
    variables = {name: cluster.environment[name] for name in ("RAY_ADDRESS", "RAY_AUTH_MODE")}

    elsewhere = launch(variables, registry=registry, port=cluster.port)
    assert elsewhere.process.wait(60) == 1
    elsewhere.wait_said(f"listens at 0.0.0.0:{port}")

    joined = launch(variables, registry=registry, host="0.0.0.0", port=port, num_cpus=0.1)
    joined.wait_ready()
    assert joined.request("POST", "/v1/predict", EXAMPLE)[0] == 200
    assert joined.stop(signal.SIGINT) == 0

    assert cluster.applications() == {"other": "RUNNING"}
    assert httpx.get(f"http://127.0.0.1:{port}/other").text == "still here"
    cluster.run("serve", "shutdown", "--yes")


def test_serve_run_under_a_path_waits_for_a_first_model_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
    await_that(cluster.applications, lambda found: not found, 60)
    registry = Registry(str(tmp_path / "models"))
    options = (f"registry={registry.uri}", "num_cpus=0.1", "poll_seconds=0.2")
    running = cluster.start("serve", "run", "serve_app.app:app", *options, "--route-prefix", "/prices")

    on_8000 = replace(cluster, port=8000)
    waiting = on_8000.await_get("/prices/readyz", lambda found: found[0] == 503 and "waiting" in found[1])
    assert "There is no registry at" in json.loads(waiting)["message"]
    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    registry.promote(NAME, FIRST, "champion", "first")
    on_8000.await_get("/prices/readyz", lambda found: found[0] == 200)

    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 0
    assert cluster.applications() == {}
