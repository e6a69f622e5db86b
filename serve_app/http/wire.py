"""Requests and replies as plain values, and their way through ASGI: limits, time, encodings."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from serve_app.errors import Problem, RequestError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Disconnected(Exception):
    """The client hung up before its request was whole."""


@dataclass(frozen=True)
class Call:
    """One request whose body was read."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    body: bytes
    request_id: str

    def header(self, name: str) -> str:
        """The value of a header, or empty."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises RequestError 400 for anything else, NaN and Infinity included."""
        try:
            return from_json(self.body, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            # The parser's words hold a position, and nothing of the body.
            raise RequestError(400, "invalid_json", f"The body is no JSON: {error}.") from None


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer of JSON."""
    return Reply(to_json(data, inf_nan_mode="constants"), status, headers=headers or {})


def error_reply(error: RequestError, request_id: str) -> Reply:
    """What a caller is told of an error."""
    return json_reply({"error": {**error.as_json(), "request_id": request_id}}, error.status, error.headers)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own, if it is short and plain, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int, seconds: float) -> bytes:
    """The whole body. Raises RequestError 413 beyond `limit` bytes, 408 if it takes too long, Disconnected."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise too_large(limit)
    reading = _read(receive, limit)
    body: bytes = await reading if declared.isdigit() and not int(declared) else await _timed(reading, seconds)
    return body


async def _read(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise too_large(limit)
        if not message.get("more_body"):
            return b"".join(pieces)


async def _timed(waiting: Awaitable[Any], seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await waiting
    except TimeoutError:
        raise RequestError(
            408, "slow_body", f"The body did not arrive within {seconds:g} s.", headers={"Connection": "close"}
        ) from None


def too_large(limit: int) -> RequestError:
    """A body over the limit; the rest of it is not read."""
    return RequestError(
        413, "body_too_large", f"The body is larger than the {limit:,} bytes allowed.", headers={"Connection": "close"}
    )


def too_many(rows: int, limit: int) -> RequestError:
    """More listings than allowed."""
    return RequestError(
        413, "too_many_rows", f"{rows:,} listings in one request, at most {limit:,} are allowed. Send them in parts."
    )


def wrong_body(found: str, expected: str) -> RequestError:
    """A body that is JSON, but of another shape."""
    return RequestError(
        422,
        "invalid_body",
        f"The body is {found}, expected {expected}.",
        [Problem("body", "unparseable", found, expected)],
    )


async def send_reply(send: Send, reply: Reply, request_id: str | None, head: bool = False) -> None:
    """Put an answer on the wire; `head` leaves its body out."""
    headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", str(len(reply.body)).encode()),
        *([(b"x-request-id", request_id.encode())] if request_id else []),
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else reply.body})
