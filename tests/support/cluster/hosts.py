"""Hosts in miniature: each has a network, processes, a home and a /tmp of its own, and an SSH server.

They live in namespaces of processes that this module starts, hang at a bridge in the operator's namespace, and leave
nothing behind when these processes end. All of them see the machine's software, and one shared folder at /mnt.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
HOME = "/srv/home"
SSHD = "/usr/sbin/sshd"
KEY = f"{HOME}/.ssh/key"
# It is the parent of every orphan of its host: ignoring their signal lets them go for good.
FIRST_PROCESS = (
    "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)


@dataclass(frozen=True)
class Host:
    """A process whose namespaces are a host's."""

    pid: int
    address: str

    def command(self, *line: str) -> list[str]:
        """A command line that runs another one on this host."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", f"--wd={Path.cwd()}", *line]

    def run(self, *line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on this host, with its own home and without this shell's Ray variables."""
        environment = host_environment(variables)
        return subprocess.run(
            self.command(*line), env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def processes(self) -> list[str]:
        """The command lines of all its processes."""
        return self.run("ps", "-eo", "args=").stdout.splitlines()


def host_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a shell on a host has set."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"HOME": HOME, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", **(variables or {})}


@contextmanager
def hosts(folder: Path, number: int, *, ssh: bool = True) -> Iterator[tuple[Host, list[Host]]]:
    """An operator's host and `number` others, which it can log in to by SSH.

    `folder`/shared is /mnt on all of them, `folder`/hostN the own files of the one whose address ends with N.
    """
    (folder / "shared").mkdir()
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with ExitStack() as stack:
        operator = stack.enter_context(_host(folder, 1, key))
        _run(
            operator,
            "ip link add bridge type bridge && ip link set bridge up && ip address add {address}/24 dev bridge",
        )
        others = []
        for position in range(2, number + 2):
            host = stack.enter_context(_host(folder, position, key))
            _connect(operator, host)
            if ssh:
                _run(host, f"{SSHD} -f /srv/sshd_config -E /srv/sshd.log")
            others.append(host)
        yield operator, others


@contextmanager
def _host(folder: Path, position: int, key: Path) -> Iterator[Host]:
    private = folder / f"host{position}"
    line = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        sys.executable,
        "-c",
        FIRST_PROCESS,
    ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        host = Host(pid, f"{NETWORK}.{position}")
        _furnish(private, key)
        # /tmp last: the folder itself may be in it.
        _run(
            host,
            f"mount --bind {folder}/shared /mnt && mount --bind {private}/srv /srv && mount -t tmpfs tmpfs /run "
            "&& mkdir /run/sshd",
        )
        _run(
            host,
            f"mount --bind {private}/passwd /etc/passwd && mount --bind {private}/shadow /etc/shadow && ip link "
            "set lo up",
        )
        _run(host, f"mount --bind {private}/tmp /tmp")
        yield host
    finally:
        process.kill()
        process.wait()


def _furnish(private: Path, key: Path) -> None:
    """Write a host's own files: a root user whose home is not the machine's, and what the SSH server wants."""
    ssh = private / "srv/home/.ssh"
    for made in (ssh, private / "tmp"):
        made.mkdir(parents=True)
    public = key.with_suffix(".pub").read_text()
    (ssh / "key").write_text(key.read_text())
    (ssh / "key").chmod(0o600)
    (ssh / "authorized_keys").write_text(public)
    # What an image does by ENV.
    (private / "srv/home/.bashrc").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    (private / "passwd").write_text(
        f"root:x:0:0:root:{HOME}:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (private / "shadow").write_text("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")
    (private / "srv/host_key").write_text(key.read_text())
    (private / "srv/host_key").chmod(0o600)
    (private / "srv/sshd_config").write_text(
        "HostKey /srv/host_key\nUsePAM no\nPermitRootLogin prohibit-password\nStrictModes no\n"
    )


def _connect(operator: Host, host: Host) -> None:
    name = f"host{host.address.rpartition('.')[2]}"
    inside = ["nsenter", f"--target={operator.pid}", "--net"]
    subprocess.run(
        [*inside, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)], check=True
    )
    subprocess.run([*inside, "ip", "link", "set", name, "master", "bridge", "up"], check=True)
    # Ray finds its own address by the route to the world outside, which need not answer.
    _run(
        host,
        f"ip address add {{address}}/24 dev eth0 && ip link set eth0 up && ip route add default via {operator.address}",
    )


def _run(host: Host, script: str) -> None:
    done = host.run("sh", "-ec", script.format(address=host.address))
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
