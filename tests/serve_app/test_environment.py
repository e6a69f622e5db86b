"""What is prepared before Ray starts: folders in which sockets have short names, and the ports that stay open."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightprice.errors import NightpriceError
from serve_app.deployment import environment
from serve_app.deployment.run import also_open

# As Ray names a node.
NODE = "f" * 56


@pytest.fixture(autouse=True)
def _own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set here ends with the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(environment, "haproxy_binary", lambda: sys.executable)


def socket_path() -> str:
    """Where HAProxy's socket will be: Ray puts the name of the node between folder and file."""
    path = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    return str(path.parent / NODE / path.name)


@pytest.mark.parametrize("port", [80, 8000, 65_535])
@pytest.mark.parametrize("letters", [1, 5, 6, 10, 40, 150])
def test_haproxys_socket_has_a_name_short_enough(monkeypatch: pytest.MonkeyPatch, port: int, letters: int) -> None:
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as parent:
        temporary = Path(parent) / ("t" * letters)
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with environment.configured(port) as folder:
            assert folder is not None
            assert len(socket_path()) <= 97
            assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_a_short_folder_for_temporary_files_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/")
    with environment.configured(8000) as folder:
        assert folder is not None
        assert folder.parent == Path("/tmp")


def test_a_folder_that_can_not_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    with (
        pytest.raises(
            NightpriceError, match=r"^HAProxy needs a folder for its sockets, and /none can't be written \(No"
        ),
        environment.configured(8000),
    ):
        pass


def test_a_socket_path_that_is_set_too_long_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"] = "/tmp/" + "s" * 36
    with (
        pytest.raises(
            NightpriceError, match=r"SOCKET_PATH=/tmp/s+ is too long: HAProxy takes 97 characters, .* most 40"
        ),
        environment.configured(8000),
    ):
        pass
    os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"] = "/tmp/" + "s" * 35
    with environment.configured(8000):
        assert len(socket_path()) == 97


# The ports


@pytest.fixture
def listeners() -> Iterator[list[int]]:
    """Ports that are open to other machines, here and in a process that this one started."""
    script = "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); input()"
    with (
        socket.create_server(("0.0.0.0", 0)) as here,
        subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as process,
    ):
        assert process.stdout is not None
        yield [here.getsockname()[1], int(process.stdout.readline())]
        process.kill()


def test_ports_that_other_machines_reach_are_named(listeners: list[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as local:
        found = environment.open_ports()
        assert set(listeners) <= set(found)
        assert local.getsockname()[1] not in found

    os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] = str(listeners[0])
    line = also_open(listeners[1])
    assert line is not None
    assert line.startswith(f"  Let your firewall open port {listeners[1]} only. Other machines can use these without")
    assert f"{listeners[0]} (HAProxy)" in line
    assert f"{listeners[1]} (" not in line, "the service's own port was asked for"


def test_where_nothing_else_is_open_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "open_ports", lambda: [8000])
    assert also_open(8000) is None
