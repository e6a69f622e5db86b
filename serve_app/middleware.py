"""What Ray Serve puts around the application in every replica (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH)."""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

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


def middlewares() -> list[Middleware]:
    """The list that Ray Serve asks for."""
    return [Middleware(Undisturbed)]
