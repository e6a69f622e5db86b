"""A real PostgreSQL server for the tests, started from the machine's binaries."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

# Debian keeps the server's programs out of the PATH.
DEBIAN = Path("/usr/lib/postgresql")
# The server refuses to run as root; its package makes this user.
SYSTEM_USER = "postgres"


def _binaries() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    there = found[-1] if found else shutil.which("initdb")
    return Path(there).resolve().parent if there else None


def _why_not() -> str | None:
    if _binaries() is None:
        return "no PostgreSQL server on this machine (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not _has_system_user():
        return f'PostgreSQL does not run as root, and there is no user "{SYSTEM_USER}"'
    return None


def _has_system_user() -> bool:
    return any(entry.pw_name == SYSTEM_USER for entry in pwd.getpwall()) and shutil.which("runuser") is not None


class Server:
    """A running server; passwords are checked, and `run` speaks as its owner."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def uri(self, database: str, user: str = "owner", password: str = "s3cr3t%2F") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, database: str, *statements: str) -> list[Any]:
        """Run statements, each on its own; the rows of the last one."""
        import adbc_driver_postgresql.dbapi

        with (
            adbc_driver_postgresql.dbapi.connect(self.uri(database), autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if statements[-1].lstrip().upper().startswith("SELECT") else []


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server on a free port, with data that goes at the end. Skips when the machine has none."""
    if reason := _why_not():
        pytest.skip(reason)
    binaries = _binaries()
    assert binaries
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text("s3cr3t/")
        as_user = []
        if os.geteuid() == 0:
            as_user = ["runuser", "-u", SYSTEM_USER, "--"]
            for path in (folder, folder / "password"):
                shutil.chown(path, SYSTEM_USER)
        data = str(folder / "data")
        initdb = [
            "--auth=scram-sha-256",
            "--username=owner",
            f"--pwfile={folder}/password",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        _run([*as_user, str(binaries / "initdb"), "-D", data, *initdb], folder)
        control = [*as_user, str(binaries / "pg_ctl"), "-D", data, "-w"]
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"], folder)
        yield Server(folder, port)
        _run([*control, "-m", "immediate", "stop"], folder)


def _run(command: list[str], folder: Path) -> None:
    # Not through a pipe: the server would inherit it and hold it open.
    with open(folder.parent / f"{folder.name}.out", "w+b") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False)
        output.seek(0)
        text = output.read().decode()
    os.unlink(folder.parent / f"{folder.name}.out")
    assert done.returncode == 0, f"{' '.join(command)}\n{text}"


@pytest.fixture
def postgres(postgres_server: Server) -> tuple[Server, str]:
    """The server, and the name of a new, empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres_server.run("postgres", f"CREATE DATABASE {name}")
    return postgres_server, name
