"""The server under the application, over a real port: what it lets through as headers, and how much of them."""

import json
import socket
from collections.abc import Iterator

import pytest

from serve_app.http.api import Api
from serve_app.http.middleware import middlewares
from serve_app.http.server import MAX_HEAD_BYTES
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from tests.support.serving.client import direct
from tests.support.serving.requests import EXAMPLE
from tests.support.serving.server import served

KEY = "a-key-of-some-length"
BODY = json.dumps(EXAMPLE).encode()


@pytest.fixture(scope="module")
def port(reloader: ModelReloader) -> Iterator[int]:
    """The application with a key, behind the server as a replica starts it."""
    middlewares()
    with served(direct(Api(reloader, ServeOptions(api_keys=KEY))), loop="asyncio", log_level="critical") as number:
        yield number


def answered(port: int, *parts: bytes) -> bytes:
    """All that comes back until the server closes the connection, or 20 s have passed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        except ConnectionError:
            return b""


def chunked(headers: bytes, trailers: bytes) -> bytes:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n" + headers
    return head + b"\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n" + trailers + b"\r\n"


def test_a_key_in_the_trailers_is_none(port: int) -> None:
    key = b"X-API-Key: " + KEY.encode() + b"\r\n"

    assert answered(port, chunked(b"", key)).startswith(b"HTTP/1.1 401 ")
    assert answered(port, chunked(key, b"")).startswith(b"HTTP/1.1 200 ")
    assert answered(port, chunked(key, b"X-API-Key: another-key-of-a-caller\r\n")).startswith(b"HTTP/1.1 200 ")


def test_a_request_id_in_the_trailers_is_none(port: int) -> None:
    key = b"X-API-Key: " + KEY.encode() + b"\r\n"

    answer = answered(port, chunked(key + b"X-Request-Id: mine\r\n", b"X-Request-Id: other\r\n"))

    assert b"x-request-id: mine\r\n" in answer
    assert b"other" not in answer


@pytest.mark.parametrize(
    "start",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ",
        b"GET /",
        chunked(b"", b"")[:-2] + b"X-Long: ",
    ],
    ids=["header", "path", "trailer"],
)
def test_endless_headers_end_the_connection(port: int, start: bytes) -> None:
    """The client never ends its headers, and would wait for an answer forever."""
    answer = answered(port, start, *[b"x" * 4_096] * (MAX_HEAD_BYTES // 4_096 + 100))

    assert b"HTTP/1.1 200" not in answer


def test_long_headers_within_the_limit_are_read(port: int) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "

    assert answered(port, head, b"x" * 60_000, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_socket_of_the_web_is_still_refused(port: int) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

    answer = answered(port, b"GET /v1/model HTTP/1.1\r\nHost: x\r\n" + upgrade + key + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 403 ")
