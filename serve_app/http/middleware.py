"""What Ray Serve puts around the application in every replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH)."""

import asyncio
from typing import Any, ClassVar

from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serve_app.http import server
from serve_app.http.wire import App, Receive, Scope, Send

DIRECT = "nightprice.direct"
"""The key of an ASGI scope that Ray Serve has not handled: it does not add its headers to the response."""
_HEADER = (b"x-request-disconnect-disabled", b"?1")


class NoDisconnectWatch:
    """Tells Ray Serve not to watch for clients that hang up: two tasks less for every request.

    A prediction is over before anybody could cancel it, and the application itself sees who hangs up within a body.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with one more header."""
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], _HEADER]
        await self._app(scope, receive, send)


class FastPath:
    """Answers `POST /v1/predict` before Ray Serve does its own work on the request, which takes twice as long.

    Such a request is answered within one iteration of the event loop: Ray has nothing to count, to queue or to wait
    for.
    """

    PATH = "/v1/predict"
    app: ClassVar[App | None] = None
    """The application that answers directly. Set by replicas without autoscaling."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, with DIRECT in the scope, or pass the request on."""
        if FastPath.app is not None and scope["type"] == "http" and scope["path"] == self.PATH:
            scope[DIRECT] = True
            await FastPath.app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class CoalesceHeaders:
    """Has uvicorn send the headers and the body of a response in one write.

    With two, HAProxy reads and sends twice, and the caller reads twice.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its response goes through a transport that holds the headers until the body comes."""
        cycle = getattr(send, "__self__", None)
        # A response to HEAD has no body, and to a caller who waits for "100 Continue" that comes first.
        if isinstance(cycle, RequestResponseCycle) and scope["method"] != "HEAD" and not cycle.waiting_for_100_continue:
            cycle.transport = _HeadersWithBody(cycle.transport)  # type: ignore[assignment]
        await self._app(scope, receive, send)


class _HeadersWithBody:
    """uvicorn's transport, but for its first write, which goes with the second."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._headers: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._headers is None:
            self._headers = data
            return
        self._transport.write(self._headers + data)
        self.write = self._transport.write  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def middlewares() -> list[Middleware]:
    """The list that Ray Serve asks for before it starts a server; the last one comes first. Headers get a limit."""
    server.install()
    return [Middleware(NoDisconnectWatch), Middleware(FastPath), Middleware(CoalesceHeaders)]
