"""The service as a process of its own, as `nightprice serve` runs it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from serve_app.options import variable
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.waiting import await_that
from transforms.listings import CONTRACT

START_SECONDS = 180
IN_A_ROW = 60


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], port: int, key: str | None = None) -> None:
        self.process, self.port, self.said = process, port, list[str]()
        self.headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        assert self._ready.wait(START_SECONDS), self.said
        assert self.process.poll() is None, self.said

    def wait_said(self, text: str) -> None:
        """After its end: that it said so."""
        self._reader.join(20)
        assert any(text in line for line in self.said), self.said

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def metrics(self) -> str:
        (line,) = [line for line in self.said if "metrics" in line]
        address = line.split("http://")[1].removesuffix("/metrics")
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, list[str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(
            method, path, None if body is None else json.dumps(body), self.headers if headers is None else headers
        )
        answer = connection.getresponse()
        answered: dict[str, list[str]] = {}
        for name, value in answer.getheaders():
            answered.setdefault(name.lower(), []).append(value)
        return answer.status, answered, answer.read()

    def below(self) -> list[psutil.Process]:
        """Every process that it started."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def replicas(self) -> set[int]:
        """Their process ids."""
        return replicas_of(self.process.pid)

    def logs(self) -> Path:
        """The folder of the log files of Ray Serve."""
        commands = [argument for process in self.below() for argument in process.cmdline()]
        (folder,) = {argument.partition("=")[2] for argument in commands if argument.startswith("--session-dir=")}
        return Path(folder) / "logs" / "serve"

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path)[2])

    def await_model(self, condition: Callable[[Any], bool], seconds: float = 60) -> Any:
        """What `/v1/model` says as soon as it fulfils a condition."""
        return await_that(lambda: self.get("/v1/model"), condition, seconds)

    def await_replicas(self, condition: Callable[[set[int]], bool], seconds: float = 120) -> None:
        """Until the processes of the replicas fulfil a condition."""
        await_that(self.replicas, condition, seconds)

    def await_log(self, condition: Callable[[Any], bool], seconds: float = 30) -> list[Any]:
        """All lines of the replicas' logs, as soon as one fulfils a condition."""
        return await_that(self._log_lines, lambda lines: any(map(condition, lines)), seconds)

    def _log_lines(self) -> list[Any]:
        return [json.loads(line) for path in self.logs().glob("replica_*") for line in path.read_text().splitlines()]

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.said.append(line.rstrip())
            if "Ctrl-C" in line:
                self._ready.set()
        self._ready.set()


def replicas_of(pid: int) -> set[int]:
    """The processes of replicas below a process."""
    return {process.pid for process in psutil.Process(pid).children(recursive=True) if _is_replica(process)}


def _is_replica(process: psutil.Process) -> bool:
    try:
        return any("ServeReplica" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def launch(variables: Mapping[str, str] | None = None, files: int | None = None, **options: Any) -> Service:
    """`nightprice serve` on a free port, with options of the service, other variables of the environment, and so
    many files at most.
    """
    port = options.setdefault("port", free_port())
    # By default they follow the load.
    options.setdefault("max_replicas", options.get("min_replicas", 1))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {variable(name): str(value) for name, value in options.items()} | {
        "PYTHONPATH": str(ROOT),
        **(variables or {}),
    }
    limited = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
    arguments = [*limited, sys.executable, "-m", "pipeline", "serve"]
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )
    return Service(process, port, options.get("api_keys"))


@contextmanager
def stopped_at_the_end(service: Service) -> Iterator[Service]:
    """A service that is ready, and does not outlive the block."""
    try:
        service.wait_ready()
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def half_a_body(service: Service) -> socket.socket:
    """A connection that has sent a request but for the second half of its body."""
    request = prediction(service.headers)
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    connection.sendall(request[: -len(json.dumps(CONTRACT.example)) // 2])
    return connection


def prediction(headers: Mapping[str, str]) -> bytes:
    """A request for one prediction, as it goes over the wire."""
    body = json.dumps(CONTRACT.example)
    heads = {"host": "x", **headers, "content-length": str(len(body))}
    return "\r\n".join(
        ["POST /v1/predict HTTP/1.1", *(f"{name}: {value}" for name, value in heads.items()), "", body]
    ).encode()


class Load:
    """Callers that ask without pause; what they were answered."""

    def __init__(self, port: int, headers: Mapping[str, str], callers: int) -> None:
        self.answers: list[tuple[int, str]] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(port, headers)) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def await_more(self, answers: int, seconds: float = 60) -> None:
        """Until there are so many answers more."""
        self._await(lambda since: len(self.answers) >= since + answers, seconds)

    def await_model(self, ref: str, seconds: float = 60) -> None:
        """Until the next answers all come from a model: from every replica, as callers are spread over them."""
        self._await(
            lambda since: (
                len(self.answers) >= since + IN_A_ROW and all(model == ref for _, model in self.answers[-IN_A_ROW:])
            ),
            seconds,
        )

    def _await(self, condition: Callable[[int], bool], seconds: float) -> None:
        deadline, since = time.monotonic() + seconds, len(self.answers)
        while not condition(since):
            assert time.monotonic() < deadline, self.answers[-5:]
            self._stopping.wait(0.02)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, port: int, headers: Mapping[str, str]) -> None:
        # Head and body at once, as fast clients do: http.client would send two packets, and the replica would
        # wait in between.
        request, connection = prediction(headers), None
        while not self._stopping.is_set():
            try:
                connection = connection or socket.create_connection(("127.0.0.1", port), timeout=30)
                connection.sendall(request)
                answer = http.client.HTTPResponse(connection, method="POST")
                answer.begin()
                content = answer.read()
                self.answers.append(
                    (answer.status, json.loads(content)["model"] if answer.status == 200 else content.decode())
                )
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((0, repr(error)))
            else:
                if not answer.will_close:
                    continue
            if connection:
                connection.close()
            connection = None
        if connection:
            connection.close()


@contextmanager
def load_on(service: Service, callers: int = 4) -> Iterator[Load]:
    load = Load(service.port, service.headers, callers)
    try:
        yield load
    finally:
        load.stop()
