"""The whole service on Ray Serve: started, asked, swapped under load, hurt, stopped."""

import http.client
import json
import re
import shutil
import signal
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from registry.artifact import MANIFEST
from registry.registry import Registry
from serve_app.deployment.environment import haproxy_binary
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.s3_server import serving
from tests.support.serving.models import registry_with
from tests.support.serving.requests import EXAMPLE
from tests.support.serving.service import Service, half_a_body, launch, load_on, stopped_at_the_end
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, tiny_artifact
from tests.support.waiting import await_that
from transforms.listings import CONTRACT

A, B, C = (f"{NAME}@{version}" for version in (FIRST, SECOND, THIRD))
CHAMPION = f"{NAME}@champion"
KEY = "a-key-of-some-length"
CALLERS = 4

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return registry_with(tmp_path_factory.mktemp("service"), [FIRST, SECOND, THIRD], boosted=True)


@pytest.fixture(scope="module")
def service(registry: Registry) -> Iterator[Service]:
    options: dict[str, Any] = {
        "model": CHAMPION,
        "poll_seconds": 0.3,
        "num_cpus": 0.1,
        "min_replicas": 2,
        "max_replicas": 2,
    }
    started = launch(registry=registry.uri, body_timeout_s=3, api_keys=KEY, log_level="DEBUG", **options)
    with stopped_at_the_end(started) as service:
        yield service


def test_it_answers_and_says_where(service: Service) -> None:
    status, headers, body = service.request("POST", "/v1/predict", EXAMPLE)

    assert (status, len(headers["x-request-id"])) == (200, 1)
    assert A.encode() in body
    assert f"Serving {CHAMPION} at http://127.0.0.1:{service.port}" in service.said
    assert service.get("/readyz")["model"] == A
    assert service.request("POST", "/v1/predict", {})[0] == 422


def test_only_callers_with_a_key_are_let_in_and_the_key_is_nowhere_else(service: Service) -> None:
    def status(**headers: str) -> int:
        return service.request("POST", "/v1/predict", EXAMPLE, headers)[0]

    assert status() == 401
    assert status(**{"x-api-key": f"{KEY}x"}) == 401
    assert status(authorization=f"Bearer {KEY}") == 200
    assert service.request("GET", "/readyz", headers={})[0] == 200
    assert all(KEY not in argument for process in service.below() for argument in process.cmdline())
    texts = [path.read_text(errors="replace") for path in service.logs().parent.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not any(KEY in text for text in [*texts, *service.said])


def test_the_log_is_json_with_the_id_of_the_request_and_nothing_of_the_listing(service: Service) -> None:
    headers = {**service.headers, "x-request-id": "me-1"}
    wrong = {**EXAMPLE, "room_type": "Castle in the air", "latitude": 40.123456}

    status, answered, body = service.request("POST", "/v1/predict", wrong, headers)

    assert (status, answered["x-request-id"], json.loads(body)["error"]["request_id"]) == (422, ["me-1"], "me-1")
    lines = service.await_log(lambda line: line.get("request") == "me-1")
    (refused,) = [line for line in lines if line.get("request") == "me-1"]
    assert (refused["levelname"], refused["message"]) == ("DEBUG", "Refused: 1 field is wrong: room_type.")
    above = [line for line in lines if line["levelname"] != "DEBUG"]
    assert any("in force after" in line["message"] for line in above)
    assert not any("Castle" in str(line) or "40.123456" in str(line) for line in above)


def test_an_id_of_its_own_is_the_same_in_header_and_body(service: Service) -> None:
    _, headers, body = service.request("POST", "/v1/predict", {})

    assert headers["x-request-id"] == [json.loads(body)["error"]["request_id"]]


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
    registry.promote(NAME, FIRST, "champion", "fixed")


def test_while_the_registry_is_away_it_serves(service: Service, registry: Registry) -> None:
    folder = Path(registry.uri)
    with load_on(service) as load:
        folder.rename(folder.with_name("away"))
        away = service.await_model(lambda model: bool(model["last_swap"]["result"] == "unreachable"))
        load.await_model(A)
        folder.with_name("away").rename(folder)
        registry.promote(NAME, SECOND, "champion", "back")
        load.await_model(B)
        registry.promote(NAME, FIRST, "champion", "x")
        load.await_model(A)

    assert "There is no registry at" in away["last_swap"]["error"]
    assert {status for status, _ in load.answers} == {200}


def test_bodies_that_stop_half_way_harm_nobody(service: Service) -> None:
    silent = [half_a_body(service) for _ in range(300)]
    with load_on(service) as load, ExitStack() as connections:
        load.await_more(100)
        answers = [connections.enter_context(connection).recv(1_000) for connection in silent]
        for _ in range(100):
            half_a_body(service).close()
        load.await_more(100)

    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert {status for status, _ in load.answers} == {200}


def test_a_killed_replica_costs_no_more_than_what_it_had_in_hand(service: Service) -> None:
    before = service.replicas()
    with load_on(service, CALLERS) as load:
        load.await_more(200)
        psutil.Process(min(before)).send_signal(signal.SIGKILL)
        service.await_replicas(lambda pids: len(pids - before) == 1 and len(pids) == 2)
        load.await_more(200)

    failed = [answer for answer in load.answers if answer[0] != 200]
    assert len(failed) <= CALLERS, failed


def test_metrics_reach_rays_endpoint(service: Service) -> None:
    service.request("POST", "/v1/predict", {**EXAMPLE, "room_type": "Flat", "made_up": 1})
    dashboard = (ROOT / "deploy" / "grafana_dashboard.json").read_text()
    wanted = set(re.findall(r"ray_nightprice_\w+", dashboard))
    assert len(wanted) == 7
    patterns = [re.compile(rf"^{name}\b", re.MULTILINE) for name in wanted] + [re.compile('problem="not_allowed"')]

    def missing() -> list[str]:
        text = service.metrics()
        return [pattern.pattern for pattern in patterns if not pattern.search(text)]

    # Ray hands metrics on every few seconds.
    await_that(missing, lambda patterns: not patterns, 60)
    assert "made_up" not in service.metrics()


@pytest.mark.skipif(haproxy_binary() is None, reason="no HAProxy here")
def test_a_port_in_use_is_named(service: Service, registry: Registry) -> None:
    second = launch(registry=registry.uri, model=CHAMPION, port=service.port)

    assert second.process.wait(60) == 1
    second.wait_said("is held by HAProxy")


@pytest.fixture(scope="module")
def second(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Second"]:
    """Beside the first: open to all, with room for few requests, its models in a bucket that is away by now."""
    folder, port = tmp_path_factory.mktemp("second"), free_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with serving(port) as endpoint:
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/models", method="PUT")).close()
            registry = registry_with(folder, [FIRST, SECOND], boosted=True, uri="s3://models/registry")
            options: dict[str, Any] = {
                "model": CHAMPION,
                "host": "0.0.0.0",
                "num_cpus": 0.1,
                "poll_seconds": 0.3,
                "cache_dir": folder / "served",
            }
            few: dict[str, Any] = {"max_ongoing_requests": 1, "max_queued_requests": 1, "max_small_requests": 1}
            # Ray's number of connections needs 10,300 files: HAProxy would not start.
            started = launch(files=4_096, registry=registry.uri, **few, **options)
            started.wait_ready()
        with stopped_at_the_end(started):
            yield Second(started, registry, port)


@dataclass(frozen=True)
class Second:
    service: Service
    registry: Registry
    s3_port: int


def test_two_services_on_one_machine_leave_each_other_alone(service: Service, second: Second) -> None:
    assert second.service.request("POST", "/v1/predict", EXAMPLE)[0] == 200
    assert service.request("POST", "/v1/predict", EXAMPLE)[0] == 200


def test_metrics_are_at_a_known_port_and_open_to_this_machine_only(service: Service, second: Second) -> None:
    """The first service by its options, the second by default, though it listens at all addresses itself."""
    for ours in (service, second.service):
        (line,) = [line for line in ours.said if "metrics" in line]
        (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/metrics", line)
        assert "ray_nightprice" in await_that(ours.metrics, lambda text: "ray_nightprice" in text, 60)
        addresses = {
            connection.laddr.ip
            for process in ours.below()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == int(port)
        }
        assert addresses == {"127.0.0.1"}


def test_whatever_other_machines_reach_is_named_at_the_start(service: Service) -> None:
    """The service and Ray listen at this machine only, but for two ports of HAProxy and one of each replica."""
    (line,) = [line for line in service.said if f"Let your firewall open port {service.port} only." in line]
    reached = set(listening(service))
    haproxy = {port for name, port in reached if name == "haproxy"}
    assert {name for name, _ in reached} == {"haproxy", "ray::ServeReplica"}
    assert len(reached) - len(haproxy) == len(service.replicas())
    assert {int(port) for port in re.findall(r"(\d+) \(HAProxy\)", line)} == haproxy
    assert len(re.findall(r"\d+ \(replica\)", line)) == line.count("(") - len(haproxy) > 0


def listening(service: Service) -> Iterator[tuple[str, int]]:
    """The ports at which processes of a service can be reached from other machines."""
    for process in service.below():
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in LOOPBACK:
                    yield process.name().partition(":nightprice")[0], connection.laddr.port


def test_an_open_service_on_all_addresses_says_so_loudly(second: Second, service: Service) -> None:
    assert "WARNING: no keys" in " ".join(second.service.said)
    assert "WARNING" not in " ".join(service.said)


def test_while_the_bucket_is_away_it_serves(second: Second) -> None:
    away = second.service.await_model(lambda model: bool(model["last_swap"]["result"] == "unreachable"))
    assert second.service.request("POST", "/v1/predict", EXAMPLE)[0] == 200

    with serving(second.s3_port):
        second.service.await_model(lambda model: bool(model["last_swap"]["result"] == "done"))
        second.registry.promote(NAME, SECOND, "champion", "back")
        second.service.await_model(lambda model: bool(model["model"] == B))

    assert (away["model"], away["last_swap"]["version"]) == (A, None)


def test_overload_is_answered_and_ends_by_itself(second: Second) -> None:
    bulk = {"listings": [EXAMPLE] * 4_000}
    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda _: second.service.request("POST", "/v1/predict/batch", bulk), range(36)))

    assert set(Counter(status for status, _, _ in answers)) == {200, 503}
    refused = [
        (headers["retry-after"], json.loads(body)["error"]["code"])
        for status, headers, body in answers
        if status == 503
    ]
    assert all(told == (["1"], "overloaded") for told in refused)
    assert second.service.request("POST", "/v1/predict/batch", bulk)[0] == 200


def test_single_rows_that_are_too_many_at_once_are_told_to_come_again(second: Second) -> None:
    port = second.service.port

    def burst() -> list[tuple[int, str | None]]:
        """The statuses of 64 requests on as many connections, and when to ask again."""
        with ExitStack() as open_connections:
            connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(64)]
            for connection in connections:
                open_connections.callback(connection.close)
                connection.connect()
            for connection in connections:
                connection.request("POST", "/v1/predict", json.dumps(EXAMPLE), second.service.headers)
            return [
                (answer.status, answer.headers["retry-after"])
                for answer in (item.getresponse() for item in connections)
            ]

    answers = await_that(burst, lambda found: (503, "1") in found, 60)

    assert set(answers) == {(200, None), (503, "1")}
    assert second.service.request("POST", "/v1/predict", EXAMPLE)[0] == 200


def test_they_end_and_leave_nothing(service: Service, second: Second) -> None:
    for ended, number in ((second.service, signal.SIGTERM), (service, signal.SIGINT)):
        below = ended.below()
        assert any("haproxy" in process.name() for process in below) or haproxy_binary() is None

        assert ended.stop(number) == 0

        assert psutil.wait_procs(below, timeout=20)[1] == []
        commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert [command for command in commands if f"haproxy-{ended.port}-" in command] == []
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", ended.port))


def test_what_is_wrong_is_said_before_ray_starts(registry: Registry, tmp_path: Path) -> None:
    newer = newer_format(registry, tmp_path / "newer")
    other = tiny_artifact(tmp_path / "other", contract={**CONTRACT.ref, "version": 99})
    damaged = tiny_artifact(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"no model")
    closed = free_port()
    cases: list[tuple[str, int, dict[str, Any], dict[str, str]]] = [
        ("There is no registry at", 2, {"registry": tmp_path / "nowhere"}, {}),
        ('holds no model "listing-price"', 2, {"registry": tmp_path}, {}),
        ('has no alias "nobody"', 2, {"registry": registry.uri, "model": f"{NAME}@nobody"}, {}),
        ("is neither a folder nor NAME@ALIAS", 2, {"model": tmp_path / "nowhere"}, {}),
        ("is not a model: it has no manifest.json", 1, {"model": tmp_path}, {}),
        ("model.onnx has changed", 1, {"model": damaged}, {}),
        ("has the model format 99", 1, {"model": newer}, {}),
        ("was trained under version 99 of the contract", 1, {"model": other}, {}),
        ("can't be loaded", 2, {"registry": registry.uri, "contract": "no_such_module:CONTRACT"}, {}),
        ("not an address of this machine", 1, {"registry": registry.uri, "host": "192.0.2.99"}, {}),
        ("No Ray cluster answers", 1, {"registry": registry.uri}, {"RAY_ADDRESS": f"127.0.0.1:{closed}"}),
        ("poll_seconds", 2, {"registry": registry.uri, "poll_seconds": 0}, {}),
        ('Did you mean "NIGHTPRICE_SERVE_PORT"', 2, {"registry": registry.uri}, {"NIGHTPRICE_SERVE_PROT": "1"}),
    ]
    with ThreadPoolExecutor(2) as starters:
        for failed, (said, code, _, _) in zip(
            starters.map(lambda case: ended(case[3], case[2]), cases), cases, strict=True
        ):
            failed.wait_said(said)
            assert failed.process.returncode == code, failed.said
            assert len([line for line in failed.said if line.startswith("Error: ")]) == 1
            assert not any("Traceback" in line for line in failed.said)


def ended(variables: dict[str, str], options: dict[str, Any]) -> Service:
    service = launch(variables, **options)
    service.process.wait(60)
    return service


def newer_format(registry: Registry, folder: Path) -> Path:
    """A copy of a model that a newer nightprice might have written."""
    shutil.copytree(Path(registry.uri) / NAME / "versions" / FIRST, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    return folder
