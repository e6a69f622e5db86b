"""Containers without an engine: an image that buildah holds, run in Linux namespaces of its own. Needs root's rights.

What `docker run --read-only --network none --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp` gives: the
image's user,
variables, folder and command as process 1, on a root file system that can't be written.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILDAH = shlex.split(os.environ.get("BUILDAH", "buildah"))
# Process 1 begins as this; what it mounts is gone with it. The size of /dev/shm is Docker's own.
FURNISH = """
set -e
root=$1 own_network=$2; shift 2
[ "$own_network" = no ] || ip link set lo up
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 shm "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"; shift 3; done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


class ContainerError(Exception):
    """A container that does not do what it should; the message holds what it said."""


def buildah(*line: str) -> str:
    """The output of a command of buildah that must succeed."""
    return subprocess.run([*BUILDAH, *line], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@dataclass(frozen=True)
class Volume:
    """A folder of this machine at a place in the container."""

    here: Path
    there: str
    writable: bool = False


class Image:
    """An image's root file system, and what it says of running it."""

    def __init__(self, name: str, root: Path, config: Mapping[str, Any]) -> None:
        self.name, self.root, self.config = name, root, config

    def line(self, command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
        """A command as the image's user, in its folder, with its variables and these, and no rights beyond."""
        entry = next(
            line
            for line in (self.root / "etc/passwd").read_text().splitlines()
            if line.split(":")[2] == self.config["User"]
        )
        user, group, home = (entry.split(":")[position] for position in (2, 3, 5))
        environment = [*self.config["Env"], f"HOME={home}", *(f"{name}={value}" for name, value in variables.items())]
        rights = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        folder = self.config.get("WorkingDir") or "/"
        return [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            *rights,
            "env",
            "-i",
            f"--chdir={folder}",
            *environment,
            *command,
        ]


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """The image of that name; what was mounted is gone afterwards."""
    working = buildah("from", "--pull-never", name)
    try:
        config = json.loads(buildah("inspect", working))["Docker"]["config"]
        yield Image(name, Path(buildah("mount", working)), config)
    finally:
        buildah("rm", working)


class Container:
    """A running container; `said` is what it has written."""

    def __init__(
        self,
        image: Image,
        command: Sequence[str] = (),
        *,
        volumes: Sequence[Volume] = (),
        variables: Mapping[str, str] | None = None,
        log: Path,
        own_network: bool = True,
    ) -> None:
        """Start the image's own command, or another one."""
        self._image, self._variables, self._log = image, dict(variables or {}), log
        for volume in volumes:
            (image.root / volume.there.lstrip("/")).mkdir(parents=True, exist_ok=True)
        binds = [part for it in volumes for part in (str(it.here), it.there, "rw" if it.writable else "ro")]
        namespaces = ["--pid", "--mount", "--ipc", *(["--net"] if own_network else [])]
        line = image.line(command or image.config["Cmd"], self._variables)
        furnish = ["sh", "-c", FURNISH, "furnish", str(image.root), "yes" if own_network else "no", *binds, "--", *line]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "--fork", "--kill-child", *furnish], stdout=output, stderr=output
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """What `docker exec` does."""
        inside = ["nsenter", f"--target={self._first()}", "--pid", "--mount", "--ipc", "--net", "--root", "--wd"]
        return subprocess.run(
            [*inside, *self._image.line(command, self._variables)], capture_output=True, text=True, check=False
        )

    def await_healthy(self, seconds: float = 300) -> float:
        """Ask the image's own health check until it agrees; returns the seconds since the start of waiting."""
        kind, *check = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.run(*check).returncode == 0:
                return time.monotonic() - began
            time.sleep(0.2)
        raise ContainerError(f"{self._image.name} did not become healthy: {self.said}")

    def wait(self, seconds: float = 600) -> int:
        """Wait for its end; the exit code of its command."""
        return self._process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal to its first process, as `docker stop` does; the exit code."""
        os.kill(self._first(), number)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it with all its processes, if it runs."""
        self._process.kill()
        self._process.wait()

    def _first(self) -> int:
        """Process 1 of the container, by its number here; waits until it is in the container's root. Raises
        ContainerError.
        """
        while self._process.poll() is None:
            try:
                (first,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
                if os.readlink(f"/proc/{first}/root") != "/":
                    return int(first)
            except (OSError, ValueError):  # not there yet, or no more
                pass
            time.sleep(0.01)
        raise ContainerError(f"{self._image.name} has ended: {self.said}")


@contextmanager
def running(image: Image, *command: str, **options: Any) -> Iterator[Container]:
    """A container that is gone afterwards."""
    container = Container(image, command, **options)
    try:
        yield container
    finally:
        container.kill()
