"""`cluster.yaml` for real: `ray up` over SSH on three hosts in miniature, the pipeline as jobs, the service, `ray
down`.

Two minutes and root's rights: set NIGHTPRICE_TEST_CLUSTER=1 to run it (Debian: openssh-server, rsync, iproute2).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.config import node_env
from tests.support.cluster.hosts import KEY, SSHD, Host, host_environment, hosts
from tests.support.paths import ROOT
from tests.support.waiting import until
from transforms.listings.generate import generate

pytestmark = [
    pytest.mark.skipif(
        "NIGHTPRICE_TEST_CLUSTER" not in os.environ, reason="NIGHTPRICE_TEST_CLUSTER=1 starts a cluster of three hosts"
    ),
]
BIN = Path(sys.executable).parent
DASHBOARD = "http://127.0.0.1:8265"
LISTING = {
    "id": 1,
    "accommodates": 4,
    "room_type": "Entire home/apt",
    "neighbourhood": "Brooklyn",
    "latitude": 40.7,
    "longitude": -73.9,
}
ENVIRONMENTS = """
import json, os, ray
ray.init(logging_level="ERROR", log_to_driver=False)
environment = ray.remote(num_cpus=0)(lambda: dict(os.environ))
there = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
asked = [environment.options(label_selector={"ray.io/node-id": node}).remote() for node in there]
print("FOUND", json.dumps(ray.get(asked)))
"""


def own_machines(config: dict[str, Any], head: str, workers: list[str]) -> dict[str, Any]:
    """cluster.yaml on machines that are there already: the same files, commands and settings."""
    of_a_cloud = ("docker", "available_node_types", "head_node_type", "max_workers")
    kept = {name: value for name, value in config.items() if name not in of_a_cloud}
    provider = {"type": "local", "head_ip": head, "worker_ips": workers}
    return kept | {"provider": provider, "auth": {"ssh_user": "root", "ssh_private_key": KEY}}


@dataclass(frozen=True)
class Operator:
    """Where `ray up` is typed."""

    host: Host
    nodes: list[Host]
    shared: Path

    def run(self, *line: object, **variables: str) -> str:
        """The output of a command that must succeed."""
        done = self.host.run(*map(str, line), RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", **variables)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def get(self, path: str) -> Any:
        token = self.run("cat", "/srv/home/.ray/auth_token")
        return json.loads(self.run("curl", "-sS", "--fail", "-H", f"Authorization: Bearer {token}", DASHBOARD + path))

    def predict(self, node: Host) -> Any:
        """What the service answers at a node."""
        return json.loads(
            self.run("curl", "-sS", f"http://{node.address}:8000/v1/predict", "--json", json.dumps(LISTING))
        )


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator with a token, three hosts, and `ray up` done."""
    needed = [name for name in (SSHD, "rsync", "unshare", "nsenter", "ip") if shutil.which(name) is None]
    if needed or os.geteuid():
        pytest.skip(f"needs root's rights, and {', '.join(needed) or 'nothing else'}")
    folder = tmp_path_factory.mktemp("hosts")
    os.chdir(ROOT)
    with hosts(folder, 3) as (host, nodes):
        found = Operator(host, nodes, folder / "shared")
        head, *workers = (node.address for node in nodes)
        config = own_machines(yaml.safe_load(Path("cluster.yaml").read_text()), head, workers)
        (found.shared / "cluster.yaml").write_text(yaml.safe_dump(config))
        found.run(BIN / "ray", "get-auth-token", "--generate")
        # Ray's newer autoscaler counts the head as one of the machines that it may start, and leaves the last
        # of them out.
        found.run(BIN / "ray", "up", "--yes", "--no-config-cache", "/mnt/cluster.yaml", RAY_UP_enable_autoscaler_v2="0")
        with forwarded(found):
            yield found


@contextmanager
def forwarded(operator: Operator) -> Iterator[None]:
    """`ray dashboard`: the head's dashboard at the operator's own port, through SSH."""
    line = operator.host.command(str(BIN / "ray"), "dashboard", "/mnt/cluster.yaml")
    environment = host_environment({"RAY_AUTH_MODE": "token"})
    process = subprocess.Popen(
        line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: operator.host.run("curl", "-sS", DASHBOARD).returncode == 0)
        yield
    finally:
        process.kill()
        process.wait()


def test_the_head_brings_up_its_workers(operator: Operator) -> None:
    until(
        lambda: (
            operator.get("/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE")["data"]["result"][
                "total"
            ]
            == 3
        )
    )


def test_every_node_has_the_settings(operator: Operator) -> None:
    said = operator.run(BIN / "ray", "job", "submit", "--address", DASHBOARD, "--", "python", "-c", ENVIRONMENTS)

    (found,) = (json.loads(line.removeprefix("FOUND ")) for line in said.splitlines() if line.startswith("FOUND "))
    wanted = node_env()
    assert [{name: one.get(name) for name in wanted} for one in found] == [wanted] * 3


def test_nobody_gets_in_without_the_token(operator: Operator) -> None:
    done = operator.host.run(
        str(BIN / "python"), "deploy/submit.py", "promote", "x", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="wrong" * 8
    )

    assert done.returncode == 1
    assert "bring the cluster's token" in done.stderr


def test_the_pipeline_runs_as_jobs_and_the_service_answers_at_the_nodes(operator: Operator) -> None:
    generate(3_000, operator.shared / "raw", shards=6)
    few = {
        "NIGHTPRICE_XGBOOST__ROUNDS": "5",
        "NIGHTPRICE_REGISTRY": "/mnt/models",
    }
    submit = (BIN / "python", "deploy/submit.py")

    operator.run(*submit, "process", "--source", "/mnt/raw", "--sink", "/mnt/dataset", **few)
    said = operator.run(*submit, "train", "--data", "/mnt/dataset", "--workers", "2", **few)
    model = next(json.loads(line)["model"] for line in said.splitlines() if line.startswith('{"model"'))
    operator.run(*submit, "promote", model, **few)
    config = yaml.safe_load((ROOT / "deploy/serve_config.yaml").read_text())
    config["applications"][0]["args"] |= {"registry": "/mnt/models", "min_replicas": 2, "max_replicas": 2}
    (operator.shared / "serve.yaml").write_text(yaml.safe_dump(config))
    operator.run(BIN / "serve", "deploy", "/mnt/serve.yaml", "--address", DASHBOARD)
    until(
        lambda: (
            operator.get("/api/serve/applications/")["applications"].get("nightprice", {}).get("status") == "RUNNING"
        )
    )

    assert operator.predict(operator.nodes[0])["model"] == model
    assert any("haproxy" in line for line in operator.nodes[0].processes())


def test_nothing_is_left_on_any_host_when_it_goes_down(operator: Operator) -> None:
    operator.run(BIN / "serve", "shutdown", "--yes", "--address", DASHBOARD)
    operator.run(BIN / "ray", "down", "--yes", "/mnt/cluster.yaml")
    # On machines that it has not started itself, Ray stops the head only.
    for worker in operator.nodes[1:]:
        assert worker.run(str(BIN / "ray"), "stop").returncode == 0

    until(
        lambda: not [line for node in operator.nodes for line in node.processes() if "ray" in line or "haproxy" in line]
    )
