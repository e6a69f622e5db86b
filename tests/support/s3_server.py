"""A real S3 API for the tests: moto's server in a thread of this process.

The port is bound and the environment set when pytest starts, so that a Ray cluster started at any time hands both to
its workers; the server itself starts with the first test that asks for a bucket. No test can reach a real cloud.
"""

import os
import socket
import threading
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

_KEY = "testing"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of its own for one test."""

    endpoint: str
    name: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"


def pytest_configure(config: pytest.Config) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config.stash[_LISTENER] = listener
    os.environ.update(
        {
            "AWS_ENDPOINT_URL": _endpoint(listener),
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"))),
        }
    )


_LISTENER = pytest.StashKey[socket.socket]()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_LISTENER].close()


def _endpoint(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


class OneAtATime:
    """A WSGI application that answers one request at a time.

    S3 decides a conditional write atomically; moto looks, then writes, and lets a second thread in between.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._turn:
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer


@pytest.fixture(scope="session")
def s3_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The endpoint of a running S3 server."""
    listener = pytestconfig.stash[_LISTENER]
    listener.listen(128)
    with serving(listener.getsockname()[1], fd=listener.fileno()) as endpoint:
        yield endpoint


@contextmanager
def serving(port: int, fd: int | None = None) -> Iterator[str]:
    """A running S3 server at a port, or at a socket that is bound to it; what it holds outlives it in this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=MotoRequestHandler, fd=fd)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def s3(s3_server: str) -> Bucket:
    """A new, empty bucket; obstore, pyarrow and boto3 find the server through the environment."""
    bucket = Bucket(s3_server, f"bucket-{uuid.uuid4().hex[:12]}")
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{bucket.name}", method="PUT")).close()
    return bucket
