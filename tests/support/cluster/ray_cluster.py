"""A cluster on hosts in miniature: a head that computes nothing and workers of two CPUs, any of which may die.

Every node has a disk (/tmp) and a network of its own; /mnt is the storage that all share, and `bucket.py` on the
operator's host an S3 API behind a proxy that can be made slow or silent.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.config import node_env
from tests.support.cluster.hosts import Host, host_environment, hosts
from transforms.listings.generate import generate

PYTHON = sys.executable
RAY = str(Path(PYTHON).with_name("ray"))
HOSTS = 11
CPUS = 2
OBJECT_STORE = 80_000_000
DISK = "400m"
# A connection to a machine that is gone ends after 13 s of silence, as docs/faults.md advises, and not after Linux's
# 15 minutes.
TCP_RETRIES = 5
BUCKET_PORT, PROXY_PORT, SERVE_PORT = 9000, 9001, 8000
# A dead node is known after some ten seconds, a slow one is not taken for dead. Ray's defaults (5 checks, each 3 s
# after the last one
# and with 10 s to answer) need up to a minute.
DETECTION = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
ALIVE = """
import sys, time
from ray._raylet import GcsClient
client, wanted, deadline = GcsClient(sys.argv[1]), int(sys.argv[2]), time.monotonic() + 240
while True:
    alive = [node for node in client.get_all_node_info().values() if node.state == 0]
    if len(alive) == wanted:
        break
    assert time.monotonic() < deadline, f"{len(alive)} nodes, not {wanted}"
    time.sleep(0.1)
"""


@dataclass
class Cluster:
    """A running cluster and the hosts that are still to join it."""

    operator: Host
    head: Host
    spare: list[Host]
    folder: Path
    workers: list[Host] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """What the hosts see as /mnt."""
        return self.folder / "shared"

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"

    @property
    def environment(self) -> dict[str, str]:
        """What is set on every node, and where commands are typed."""
        endpoint = f"http://{self.operator.address}:{PROXY_PORT}"
        s3 = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        quick = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.01", "RAY_TRAIN_ENABLE_STATE_TRACKING": "0"}
        # On a busy machine a proxy takes longer to start than the 5 s after which Ray begins anew.
        quick["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "30"
        no_metadata = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ALLOW_HTTP": "true"}
        return node_env() | DETECTION | s3 | no_metadata | quick | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}

    def tmp(self, host: Host) -> Path:
        """A host's own disk, seen from here as long as it lives."""
        return Path("/proc", str(host.pid), "root", "tmp")

    def proc(self, host: Host) -> Path:
        """Its processes, as it sees them."""
        return Path("/proc", str(host.pid), "root", "proc")

    def start_head(self) -> None:
        more = ("--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
        self._start(self.head, *more)

    def add_worker(self) -> None:
        """Let a further host join."""
        host = self.spare.pop(0)
        self._start(host, f"--address={self.address}", f"--num-cpus={CPUS}")
        self.workers.append(host)

    def _start(self, host: Host, *options: str) -> None:
        line = f"{RAY} start --node-ip-address={host.address} --object-store-memory={OBJECT_STORE} {' '.join(options)}"
        prepared = f"mount -t tmpfs -o size={DISK} tmpfs /tmp; echo {TCP_RETRIES} > /proc/sys/net/ipv4/tcp_retries2"
        done = host.run("sh", "-ec", f"{prepared}; {line}", **self.environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, host: Host) -> None:
        """The machine loses its power: all its processes at once, and its network with them."""
        os.kill(host.pid, signal.SIGKILL)
        self.workers.remove(host)

    def await_nodes(self) -> None:
        """Until Ray knows who is there and who is dead."""
        done = self.operator.run(
            PYTHON, "-c", ALIVE, self.address, str(len(self.workers) + 1), RAY_AUTH_MODE="disabled"
        )
        assert done.returncode == 0, done.stderr

    def restore(self, number: int) -> None:
        """As many workers as a test wants."""
        while len(self.workers) < number:
            self.add_worker()
        self.await_nodes()

    def start(self, *arguments: object, **variables: str) -> "subprocess.Popen[str]":
        """`nightprice …`, typed on the head."""
        return self.python("-m", "pipeline", *arguments, **variables)

    def gated(self, gate: Path, *arguments: object) -> "subprocess.Popen[str]":
        """The same, through `gated.py`; with a JSON result."""
        return self.python("-m", "tests.support.cluster.gated", f"/mnt/{gate.name}", *arguments, "--json")

    def python(self, *arguments: object, **variables: str) -> "subprocess.Popen[str]":
        """A driver of this cluster on the head."""
        environment = host_environment(self.environment | {"RAY_ADDRESS": self.address} | variables)
        line = self.head.command(PYTHON, *map(str, arguments))
        pipe = subprocess.PIPE
        return subprocess.Popen(line, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: object, **variables: str) -> "Done":
        """The same, to its end."""
        return finish(self.start(*arguments, **variables))

    def must(self, *arguments: object, **variables: str) -> Any:
        """The JSON result of a command that must succeed."""
        return self.run(*arguments, "--json", **variables).result()


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def result(self) -> Any:
        assert self.code == 0, f"{self.code}\n{self.stdout}\n{self.stderr}"
        # A driver that is no command of ours shows what Ray prints, too.
        (line,) = (line for line in self.stdout.splitlines() if line.startswith("{"))
        return json.loads(line)

    def error(self) -> str:
        """The one sentence of a command that failed."""
        assert self.code != 0, self.stdout
        assert "Traceback" not in self.stderr, self.stderr
        return self.stderr.partition("Error: ")[2].strip()


def finish(process: "subprocess.Popen[str]", seconds: float = 400) -> Done:
    """Wait for the end of a command."""
    begun = time.monotonic()
    stdout, stderr = process.communicate(timeout=seconds)
    return Done(process.returncode, stdout, stderr, time.monotonic() - begun)


def kill(process: "subprocess.Popen[str]", sent: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a command itself, and wait for its end: what was started is only the way into its host's
    namespaces.
    """
    (inside,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(inside), sent)
    process.communicate()


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """A head and workers that have joined it."""
    with hosts(folder, HOSTS, ssh=False) as (operator, (head, *spare)):
        made = Cluster(operator, head, spare, folder)
        made.start_head()
        for _ in range(workers):
            made.add_worker()
        made.await_nodes()
        yield made


@contextmanager
def full_disk(host: Host) -> Iterator[None]:
    """Somebody else's file, to the last byte."""
    done = host.run("sh", "-c", "cat /dev/zero > /tmp/full")
    assert "No space left" in done.stderr
    try:
        yield
    finally:
        assert host.run("rm", "/tmp/full").returncode == 0


def raw_listings(folder: Path, rows: int, shards: int) -> Path:
    """Generated listings without bad rows."""
    generate(rows, folder, shards=shards, bad_rows=0.0)
    return folder
