"""What the deployment puts around the application."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.app import Prediction, seen_by_autoscaling
from serve_app.http.middleware import FastPath
from serve_app.http.wire import App
from serve_app.metrics import NoMetrics
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from tests.support.serving.client import Client
from tests.support.serving.requests import EXAMPLE


def test_requests_that_wait_are_counted_before_the_first_is_worked_on() -> None:
    in_flight, seen = 0, list[int]()

    async def api(*_: Any) -> None:
        seen.append(in_flight)

    application = seen_by_autoscaling(api)

    async def counted_by_ray() -> None:
        nonlocal in_flight
        in_flight += 1
        await application({}, _nothing, _nothing)
        in_flight -= 1

    async def five_at_once() -> None:
        await asyncio.gather(*(counted_by_ray() for _ in range(5)))

    asyncio.run(five_at_once())

    assert seen[0] == 5


@pytest.fixture(autouse=True)
def _no_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastPath, "app", None)


def application(reloader: ModelReloader, **options: Any) -> App:
    """What a replica with these options gives to Ray Serve."""
    replica: Any = SimpleNamespace(_reloader=reloader, _options=ServeOptions(**options), _metrics=NoMetrics())
    return Prediction.__serve_build_asgi_app__(replica)


@pytest.mark.parametrize(("most", "takes_it"), [(1, True), (2, False)])
def test_only_replicas_that_do_not_scale_take_the_fast_path(most: int, takes_it: bool, reloader: ModelReloader) -> None:
    application(reloader, max_replicas=most)

    assert (FastPath.app is not None) == takes_it


@pytest.mark.parametrize("first_is_direct", [True, False])
def test_limits_hold_over_both_ways_together(
    reloader: ModelReloader, first_is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, end = threading.Event(), threading.Event()

    def work(*_: Any) -> dict[str, Any]:
        began.set()
        assert end.wait(20)
        return {"price_category": "Low"}

    monkeypatch.setattr("serve_app.model.predictor.Predictor.predict", work)
    through_ray = application(reloader, max_ongoing_requests=1, max_queued_requests=0)
    assert FastPath.app is not None
    first, second = (FastPath.app, through_ray) if first_is_direct else (through_ray, FastPath.app)
    large = {**EXAMPLE, "amenities": ["TV"] * 2_000}

    with ThreadPoolExecutor(1) as caller:
        working = caller.submit(Client(first).post, "/v1/predict", large)
        assert began.wait(20)
        assert Client(second).post("/v1/predict", large).status_code == 503
        end.set()
        assert working.result(20).status_code == 200


@pytest.mark.parametrize("direct", [True, False])
def test_only_where_ray_serve_is_passed_by_the_api_sends_the_request_id(reloader: ModelReloader, direct: bool) -> None:
    app = application(reloader)
    fast_path: Any = FastPath(app)
    if not direct:
        FastPath.app = None

    async def ask() -> list[bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [(b"x-request-id", b"me-1")]}
        await fast_path(scope, receive, send)
        return [value for name, value in sent[0]["headers"] if name == b"x-request-id"]

    assert asyncio.run(ask()) == ([b"me-1"] if direct else [])


async def _nothing(*_: Any) -> Any:
    raise AssertionError
