"""The application in process: requests go through ASGI, no port and no Ray needed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from serve_app.http.api import Api
from serve_app.http.middleware import DIRECT
from serve_app.http.wire import ARROW, App, Receive, Scope, Send
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions

URL = "http://nightprice"


def direct(app: App) -> App:
    """The application as it answers where Ray Serve is not in between."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, DIRECT: True}, receive, send)

    return marked


class Client:
    """Sends requests to an application, one by one."""

    def __init__(self, api: App) -> None:
        self.api = api

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self._open() as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post_at_once(self, requests: Sequence[tuple[str, Any]]) -> list[httpx.Response]:
        """The answers to paths and bodies that all reach the application in one iteration of its event loop."""

        async def send() -> list[httpx.Response]:
            async with self._open() as client:
                return await asyncio.gather(*(client.post(path, json=body) for path, body in requests))

        return asyncio.run(send())

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(direct(self.api)), base_url=URL)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, **({"json": json} if json is not None else {}), **options)

    def arrow(self, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.post("/v1/predict/batch", content=body, headers={"content-type": ARROW, **(headers or {})})


def client_of(reloader: ModelReloader, **options: Any) -> Client:
    return Client(Api(reloader, ServeOptions(**options)))
