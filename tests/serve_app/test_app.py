"""What the deployment puts around the application."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.config import AutoscalingPolicy

from serve_app.app import Prediction, _replicas
from serve_app.deployment.autoscaling import POLICY, REQUESTS_IN_HAND
from serve_app.http.load import Load
from serve_app.http.middleware import FastPath
from serve_app.http.wire import App
from serve_app.metrics import NoMetrics
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from tests.support.serving.client import Client
from tests.support.serving.requests import EXAMPLE


@pytest.fixture(autouse=True)
def _no_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastPath, "app", None)


def application(reloader: ModelReloader, **options: Any) -> App:
    """What a replica with these options gives to Ray Serve."""
    replica: Any = SimpleNamespace(_reloader=reloader, _options=ServeOptions(**options), _metrics=NoMetrics())
    return Prediction.__serve_build_asgi_app__(replica)


@pytest.mark.parametrize("most", [1, 2])
def test_every_replica_takes_the_fast_path(most: int, reloader: ModelReloader) -> None:
    through_ray = application(reloader, max_replicas=most)

    assert FastPath.app is through_ray


@pytest.mark.parametrize(
    ("options", "most"), [({}, 4), ({"num_cpus": 0.5}, 8), ({"num_cpus": 0}, 4), ({"max_replicas": 3}, 3)]
)
def test_by_default_there_are_as_many_replicas_as_the_cpus_allow(
    options: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.app.process_cpus", lambda: 4)

    (scaling,) = _replicas(ServeOptions(**options)).values()

    assert (scaling.min_replicas, scaling.max_replicas) == (1, most)


def test_where_the_cpus_allow_no_more_the_number_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.app.process_cpus", lambda: 4)

    assert _replicas(ServeOptions(min_replicas=4)) == {"num_replicas": 4}


def test_requests_that_wait_together_are_the_load(reloader: ModelReloader, monkeypatch: pytest.MonkeyPatch) -> None:
    in_hand: list[int] = []
    monkeypatch.setattr(Load, "add", lambda _, requests, seconds: in_hand.append(requests))
    client = Client(application(reloader))

    client.post_at_once([("/v1/predict", EXAMPLE)] * 5)
    client.post("/v1/predict", EXAMPLE)

    assert in_hand == [5, 1]


def test_long_requests_are_the_load_while_they_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serve_app.http.load.time.perf_counter", lambda: now)
    load = Load()

    load.begin()
    load.begin()
    now = 3.0
    load.end()
    now = 4.0
    load.add(4, 0.5)

    # Two for three seconds, one for another, and four for half a second.
    assert load.mean() == (2 * 3 + 1 + 4 * 0.5) / 4
    now = 5.0
    assert load.mean() == 1


def test_the_load_decides_how_many_replicas_there_are() -> None:
    policy = AutoscalingPolicy(policy_function=POLICY)
    config = SimpleNamespace(target_ongoing_requests=2.0)
    busy = SimpleNamespace(aggregated_metrics={REQUESTS_IN_HAND: {"a": 3.0, "b": 2.0}}, config=config)
    silent = SimpleNamespace(aggregated_metrics={}, config=config, target_num_replicas=3)

    # As Ray's controller has it, which may know nothing of this project.
    decide = policy.get_policy()

    assert (decide(busy)[0], decide(silent)[0]) == (2.5, 3)


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
