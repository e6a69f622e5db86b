"""Joining a Ray cluster, or starting Ray on this machine; what goes wrong is one sentence."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from nightprice.errors import NightpriceError, UsageError, first_line
from nightprice.signals import held

# The name of a socket has at most 107 characters, of which Ray uses
# /ray/session_2026-11-23_13-45-00_123456_1234567/sockets/plasma_store.
LONGEST_TEMPORARY_FOLDER = 107 - 68


def connect(**local: Any) -> None:
    """Join the cluster of `RAY_ADDRESS`, or start Ray on this machine with the arguments `local` of `ray.init`.

    Raises NightpriceError if the cluster does not answer, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_answers(address)
    else:
        check_temporary_folder()
    import ray

    place = {"address": address} if address else {"address": "local", "include_dashboard": False, **local}
    try:
        # Interrupted halfway, Ray's core ends in a segmentation fault at the exit of the process.
        with held(signal.SIGINT), _held_back_stderr():
            ray.init(**place, log_to_driver=False, logging_level=logging.WARNING)
    except KeyboardInterrupt:
        disconnect(keep_logs=False)
        raise
    except Exception as error:  # Ray's errors have no common base but Exception
        raise NightpriceError(_not_started(address, first_line(error))) from error


def disconnect(*, keep_logs: bool) -> None:
    """Leave the cluster, or end the Ray that `connect` started: its session folder (logs, sockets) goes with it.

    `keep_logs` leaves the folder, for after a failure.
    """
    import ray
    from ray._private import worker

    # There is no public way to ask for it.
    node: Any = worker._global_node
    session = node.get_session_dir_path() if node is not None and node.is_head() else None
    ray.shutdown()
    if session and not keep_logs:
        shutil.rmtree(session, ignore_errors=True)


def _not_started(address: str | None, reason: str) -> str:
    if address:
        return (
            f"Ray at RAY_ADDRESS={address} does not answer: {reason}. Start it, correct RAY_ADDRESS, or unset it to "
            "run on this machine alone."
        )
    # Ray gives its own processes 30 s.
    return (
        f"Ray does not start on this machine: {reason}. Try again when it is less busy; Ray's logs are in "
        "/tmp/ray/session_latest/logs."
    )


@contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Show what is written to descriptor 2 only after a failure: Ray's core announces its log level there."""
    with tempfile.TemporaryFile() as written, open(os.dup(2), "wb") as screen:
        sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            screen.write(written.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen.fileno(), 2)


def check_temporary_folder() -> None:
    """Raise NightpriceError for a folder of temporary files in which the names of Ray's sockets would be too long."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
    name, folder = next(((name, os.environ[name]) for name in names if name in os.environ), ("", ""))
    if len(os.fsencode(folder)) > LONGEST_TEMPORARY_FOLDER:
        raise NightpriceError(
            f"Ray can't start in {name}={folder}: with the names of its sockets that is longer than the system allows. "
            f"Set RAY_TMPDIR to a folder whose name has at most {LONGEST_TEMPORARY_FOLDER} characters, such as /tmp."
        )


def check_answers(address: str, seconds: float = 3.0) -> None:
    """Raise NightpriceError unless something listens at a cluster's address: Ray itself would try for two minutes.

    Addresses without host and port, such as "auto", are left to Ray.
    """
    host, port = _host_and_port(address)
    if host is None or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise NightpriceError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}). Start one there with "
            "`ray start --head`, correct RAY_ADDRESS, or unset it to run on this machine alone."
        ) from error


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    parts = urlsplit(address if "://" in address else f"ray-gcs://{address}")
    if parts.scheme in ("http", "https"):
        raise UsageError(
            f"RAY_ADDRESS={address} is the address of the dashboard, which only `ray job submit` uses. Set it to "
            "HOST:6379 of the head node."
        )
    try:
        return parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(
            f"RAY_ADDRESS={address} is not an address: {error}. Write HOST:PORT, as in 10.0.0.5:6379."
        ) from error
