"""The application in process: requests go through ASGI, no port and no Ray needed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from serve_app.http.api import Api
from serve_app.http.wire import ARROW
from serve_app.model.reloader import Follower
from serve_app.options import ServeOptions

URL = "http://nightprice"


class Client:
    """Sends requests to an application, one by one."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self._open() as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post_at_once(self, requests: Sequence[tuple[str, Any]]) -> list[httpx.Response]:
        """The answers to paths and bodies that all reach the application in one turn of its event loop."""

        async def send() -> list[httpx.Response]:
            async with self._open() as client:
                return await asyncio.gather(*(client.post(path, json=body) for path, body in requests))

        return asyncio.run(send())

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.api), base_url=URL)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return self.request("POST", path, **({"json": json} if json is not None else {}), **options)

    def arrow(self, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.post("/v1/predict/batch", content=body, headers={"content-type": ARROW, **(headers or {})})


def client_of(follower: Follower, **options: Any) -> Client:
    return Client(Api(follower, ServeOptions(**options)))
