"""The whole service on Ray Serve: started, asked, swapped under load, stopped."""

import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.registry import Registry
from serve_app.environment import haproxy_binary, processes
from tests.serve_app.models import registry_with
from tests.serve_app.service import Service, free_port, launch, load_on
from tests.tiny_model import FIRST, NAME, SECOND, THIRD
from transforms.example import EXAMPLE

A, B, C = (f"{NAME}@{version}" for version in (FIRST, SECOND, THIRD))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return registry_with(tmp_path_factory.mktemp("service"), [FIRST, SECOND, THIRD], boosted=True)


@pytest.fixture(scope="module")
def service(registry: Registry) -> Iterator[Service]:
    service = launch(registry=registry.uri, model=f"{NAME}@champion", poll_seconds=0.3, num_cpus=0.1, min_replicas=2, max_replicas=2)
    try:
        service.wait_ready()
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def test_it_answers_and_says_where(service: Service) -> None:
    status, headers, body = service.request("POST", "/v1/predict", EXAMPLE)

    assert (status, len(headers["x-request-id"])) == (200, 1)
    assert A.encode() in body
    assert f"Serving {NAME}@champion at http://127.0.0.1:{service.port}" in service.said
    assert service.get("/readyz")["model"] == A
    assert service.request("POST", "/v1/predict", {})[0] == 422


def test_promotions_and_rollbacks_lose_no_request(service: Service, registry: Registry) -> None:
    with load_on(service) as load:
        load.await_model(A)
        registry.promote(NAME, SECOND, "champion", "x")
        load.await_model(B)
        registry.rollback(NAME, "champion", "x")
        load.await_model(A)

    assert {status for status, _ in load.answers} == {200}
    assert {model for _, model in load.answers} == {A, B}


def test_a_broken_version_changes_nothing_but_what_is_said(service: Service, registry: Registry) -> None:
    broken = Path(registry.uri) / NAME / "versions" / THIRD / "model.onnx"
    with load_on(service) as load:
        registry.promote(NAME, THIRD, "champion", "x")
        load.await_model(C)
        registry.promote(NAME, FIRST, "champion", "x")
        load.await_model(A)
        broken.write_bytes(b"no model")
        # A rollback does not look at the version first.
        assert registry.rollback(NAME, "champion", "x").version == THIRD
        model = service.await_model(lambda model: bool(model["last_swap"]["result"] == "failed"))
        load.await_model(A)
    assert {status for status, _ in load.answers} == {200}
    assert (model["model"], model["last_swap"]["version"], model["last_swap"]["previous"]) == (A, THIRD, FIRST)
    assert "model.onnx has changed" in model["last_swap"]["error"]


def test_metrics_reach_rays_endpoint(service: Service) -> None:
    service.request("POST", "/v1/predict", {**EXAMPLE, "room_type": "Flat", "made_up": 1})
    dashboard = (Path(__file__).parents[2] / "deploy" / "grafana_dashboard.json").read_text()
    wanted = set(re.findall(r"ray_nightprice_\w+", dashboard))
    assert len(wanted) == 7
    patterns = [re.compile(rf"^{name}\b", re.MULTILINE) for name in wanted]
    # Ray hands metrics on every few seconds.
    with load_on(service, callers=1) as load:
        for _ in range(60):
            text = service.metrics()
            if all(pattern.search(text) for pattern in patterns) and 'problem="not_allowed"' in text:
                break
            load.await_model(A)
    missing = [pattern.pattern for pattern in patterns if not pattern.search(text)]
    assert not missing
    assert "made_up" not in text


@pytest.mark.skipif(haproxy_binary() is None, reason="no HAProxy here")
def test_a_port_in_use_is_named(service: Service, registry: Registry) -> None:
    second = launch(registry=registry.uri, model=f"{NAME}@champion", port=service.port)

    assert second.process.wait(60) == 1
    second.wait_said("is held by HAProxy")


def test_it_ends_and_leaves_nothing(service: Service) -> None:
    assert service.stop(signal.SIGINT) == 0

    assert [command for _, command in processes() if f"nightprice-haproxy-{service.port}/" in command] == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", service.port))


def test_what_is_wrong_is_said_before_ray_starts(registry: Registry, tmp_path: Path) -> None:
    for said, options in (
        ("There is no registry at", {"registry": str(tmp_path / "nowhere")}),
        ('has no alias "nobody"', {"registry": registry.uri, "model": f"{NAME}@nobody"}),
        ("is neither NAME@ALIAS", {"model": str(tmp_path)}),
        ("no address of this machine", {"registry": registry.uri, "host": "192.0.2.99", "port": free_port()}),
    ):
        failed = launch(**options)
        assert failed.process.wait(60) == 1
        failed.wait_said(said)


def test_overload_is_answered_and_ends_by_itself(registry: Registry) -> None:
    narrow = launch(registry=registry.uri, model=f"{NAME}@{FIRST}", num_cpus=0.1, max_ongoing_requests=1, max_queued_requests=1)
    try:
        narrow.wait_ready()
        bulk = {"listings": [EXAMPLE] * 4_000}
        with ThreadPoolExecutor(12) as callers:
            answers = list(callers.map(lambda _: narrow.request("POST", "/v1/predict/batch", bulk), range(36)))

        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) == {200, 503}, statuses
        assert {headers["retry-after"][0] for status, headers, _ in answers if status == 503} == {"1"}
        assert narrow.request("POST", "/v1/predict", EXAMPLE)[0] == 200
    finally:
        assert narrow.stop() == 0
