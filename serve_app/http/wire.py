"""Requests and responses as plain values, and their way through ASGI: limits, time, encodings."""

import asyncio
import codecs
import math
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from serve_app.errors import Problem, RequestError
from serve_app.http.held_bytes import UNCOUNTED_BYTES, Hold

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
# A server keeps what it is given until the client takes it: it is given no more than this.
PART_BYTES = 2**18
# What Python takes for a value with its place in a list or object, and for an object of few fields.
_BYTES_OF_VALUE = 64
_BYTES_OF_OBJECT = 300
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Disconnected(Exception):
    """The client hung up before its request was complete."""


@dataclass(frozen=True)
class Request:
    """One request whose body was read."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    """Names in lower case."""
    body: bytes
    request_id: str
    receive: Receive | None = None
    """Tells when the client hangs up."""

    def header(self, name: str) -> str:
        """The value of a header, or empty."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.header("content-type").partition(";")[0].strip().lower()

    def json(self, max_bytes: float = math.inf) -> Any:
        """The body as JSON. Raises RequestError 400 for anything else, NaN and Infinity included, 413 for values that
        take more than about `max_bytes` of memory.

        >>> Request("POST", "/", {}, b'{"id": 1}', "me").json()
        {'id': 1}
        """
        return parse_json(self.body, max_bytes=max_bytes)


@dataclass(frozen=True)
class Response:
    """One response."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_json(content: bytes, *, allow_nan: bool = False, max_bytes: float = math.inf) -> Any:
    """JSON in UTF-8, with or without a byte order mark, whose values take at most about `max_bytes` of memory.

    Raises RequestError 400 for anything else, 413 for more.

    >>> parse_json(codecs.BOM_UTF8 + b"[1]")
    [1]
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError(400, "invalid_json", "The body is UTF-16, expected JSON in UTF-8.")
    if len(content) * _BYTES_OF_OBJECT > max_bytes and _parsed_bytes(content) > max_bytes:
        raise RequestError(
            413, "too_many_values", "The values of the JSON would take too much memory. Split the request."
        )
    try:
        return from_json(content.removeprefix(codecs.BOM_UTF8), allow_inf_nan=allow_nan, cache_strings="keys")
    except ValueError as error:
        # The parser's message has a position, and nothing of the body.
        raise RequestError(400, "invalid_json", f"The body is not JSON: {error}.") from None


def _parsed_bytes(content: bytes) -> int:
    """How much memory the values of JSON take, seen from the marks between them; at least about."""
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    return len(content) + _BYTES_OF_VALUE * values + (_BYTES_OF_OBJECT - _BYTES_OF_VALUE) * content.count(b"{")


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON.

    >>> json_response({"status": "ok"}).body
    b'{"status":"ok"}'
    """
    return Response(to_json(data, inf_nan_mode="constants"), status, headers=headers or {})


def error_response(error: RequestError, request_id: str) -> Response:
    """What a caller is told of an error."""
    return json_response({"error": {**error.as_json(), "request_id": request_id}}, error.status, error.headers)


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own, if it is short and plain, else a new one.

    >>> request_id_of({b"x-request-id": b"me-1"})
    'me-1'
    """
    own = headers.get(b"x-request-id", b"")
    return own.decode() if _REQUEST_ID.fullmatch(own) else uuid.uuid4().hex


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int, seconds: float, hold: Hold) -> bytes:
    """The whole body, counted in `hold` as it arrives.

    Raises RequestError 413 beyond `limit` bytes, 408 if it takes too long, 503 if `hold` has no room; Disconnected.
    """
    declared = headers.get(b"content-length", b"")
    size = int(declared) if declared.isdigit() and len(declared) < 19 else None
    if declared.isdigit() and (size is None or size > limit):
        raise too_large(limit)
    if size and size > UNCOUNTED_BYTES:
        hold.check(size)
    reading = _read(receive, limit, hold)
    body: bytes = await reading if size == 0 else await _timed(reading, seconds)
    return body


async def _read(receive: Receive, limit: int, hold: Hold) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise too_large(limit)
        if size > UNCOUNTED_BYTES:
            hold.set(size)
        if not message.get("more_body"):
            return b"".join(chunks)


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
    """More rows than allowed."""
    return RequestError(
        413, "too_many_rows", f"{rows:,} rows in one request, at most {limit:,} are allowed. Split the request."
    )


def wrong_body(found: str, expected: str) -> RequestError:
    """A body that is JSON, but of another shape."""
    return RequestError(
        422,
        "invalid_body",
        f"The body is {found}, expected {expected}.",
        [Problem("body", "unparseable", found, expected)],
    )


async def hung_up(receive: Receive | None) -> None:
    """Returns when the client of a request, whose body was read, hangs up."""
    if receive is None or (await receive())["type"] != "http.disconnect":
        await asyncio.Event().wait()


async def send_response(
    send: Send, response: Response, request_id: str | None, head: bool = False, seconds: float | None = None
) -> None:
    """Send a response; `head` leaves its body out. What the client has not taken after `seconds` is not sent."""
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *([(b"x-request-id", request_id.encode())] if request_id else []),
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.items()),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if head else response.body
    if len(body) <= PART_BYTES:
        await send({"type": "http.response.body", "body": body})
    else:
        await _send_parts(send, body, seconds)


async def _send_parts(send: Send, body: bytes, seconds: float | None) -> None:
    """As the client takes them; the server closes a connection whose response is not complete."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for start in range(0, len(body), PART_BYTES):
                end = start + PART_BYTES
                await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
