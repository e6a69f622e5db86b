"""What stands around the application in a replica, under the server that Ray Serve runs it on."""

import http.client
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serve_app.http.middleware import FastPath, middlewares
from tests.support.serving.server import served

BODY = b'{"hello": "world"}'


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads what it is sent and says how much that was, or breaks in the middle of its answer."""
    asked = await receive()
    size = str(len(asked["body"])).encode()
    headers = [(b"content-length", str(len(BODY)).encode()), (b"x-size", size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/broken":
        raise RuntimeError("broken")
    await send({"type": "http.response.body", "body": BODY[:5], "more_body": True})
    await send({"type": "http.response.body", "body": BODY[5:]})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The application behind uvicorn, wrapped as Ray Serve does: the last one outermost."""
    app: Any = answer
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    with served(app, loop="asyncio", log_level="critical") as number:
        yield number


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the server hands to its socket, write by write."""
    seen: list[bytes] = []
    write = _SelectorSocketTransport.write

    def noting(self: Any, data: bytes) -> None:
        seen.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(_SelectorSocketTransport, "write", noting)
    return seen


def ask(port: int, method: str, path: str = "/", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, b"12345" if method == "POST" else None, headers)
    found = connection.getresponse()
    return found, found.read()


async def shortcut(scope: Scope, receive: Receive, send: Send) -> None:
    """What a replica that does not scale answers with, before Ray Serve."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"short"})


def test_one_listing_takes_the_shortcut_where_there_is_one(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(port, "POST", "/v1/predict")[1] == BODY

    monkeypatch.setattr(FastPath, "app", shortcut)

    assert ask(port, "POST", "/v1/predict")[1] == b"short"
    assert ask(port, "POST", "/v1/predict/batch")[1] == BODY


def test_the_head_goes_with_the_beginning_of_the_body(port: int, written: list[bytes]) -> None:
    found, body = ask(port, "POST")

    assert (found.status, found.headers["x-size"], body) == (200, "5", BODY)
    assert [data[-5:] for data in written] == [BODY[:5], BODY[-5:]]


def test_the_next_request_of_a_connection_is_answered_too(port: int, written: list[bytes]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/")
        assert connection.getresponse().read() == BODY

    assert len(written) == 6


def test_to_head_the_head_alone_is_sent(port: int) -> None:
    found, body = ask(port, "HEAD")

    assert (found.status, found.headers["content-length"], body) == (200, str(len(BODY)), b"")


def test_whoever_waits_for_leave_to_send_a_body_gets_it(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "5")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.send(b"12345")

    assert connection.getresponse().read() == BODY


def test_an_answer_that_breaks_off_ends_the_connection(port: int) -> None:
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(port, "POST", "/broken")
