"""What Ray Serve puts around the application in every replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH)."""

import asyncio
from typing import Any, ClassVar

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_HEADER = (b"x-request-disconnect-disabled", b"?1")


class Undisturbed:
    """Tells Ray Serve not to watch for clients that hang up: two tasks less for every request.

    A prediction is over before anybody could cancel it, and the application itself sees who hangs up within a body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with one header more."""
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], _HEADER]
        await self._app(scope, receive, send)


class Shortcut:
    """Answers for one listing before Ray Serve does its own work on the request, which takes twice as long as the
    answer.

    Such an answer is given within one turn of the event loop, so that there is nothing of it to count, to queue or to
    wait for.
    """

    PATH = "/v1/predict"
    app: ClassVar[ASGIApp | None] = None
    """What answers; a replica sets it that Ray does not scale by the requests it counts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, or pass the request on."""
        answers = Shortcut.app if scope["type"] == "http" and scope["path"] == self.PATH else None
        await (answers or self._app)(scope, receive, send)


class InOnePiece:
    """Has uvicorn write the head and the body of an answer together.

    uvicorn writes one after the other, and then HAProxy reads and sends twice, and the caller reads twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; what it is answered goes through a transport that keeps the head until the body
        comes.
        """
        cycle = getattr(send, "__self__", None)
        # To HEAD no body follows, and to a caller who waits for "100 Continue" that comes first.
        if isinstance(cycle, RequestResponseCycle) and scope["method"] != "HEAD" and not cycle.waiting_for_100_continue:
            cycle.transport = _HeadWithBody(cycle.transport)  # type: ignore[assignment]
        await self._app(scope, receive, send)


class _HeadWithBody:
    """uvicorn's transport, but for its first write, which goes with the second."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            return
        self._transport.write(self._head + data)
        self.write = self._transport.write  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def middlewares() -> list[Middleware]:
    """The list that Ray Serve asks for; the last one comes first."""
    return [Middleware(Undisturbed), Middleware(Shortcut), Middleware(InOnePiece)]
