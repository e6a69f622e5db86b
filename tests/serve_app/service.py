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

from transforms.example import EXAMPLE

ROOT = Path(__file__).parents[2]
CODE = "import json, sys; from serve_app.run import serve; serve(say=lambda line: print(line, flush=True), **json.loads(sys.argv[1]))"
START_SECONDS = 90
IN_A_ROW = 60


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.said = process, port, list[str]()
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

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, list[str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, None if body is None else json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        headers: dict[str, list[str]] = {}
        for name, value in answer.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        return answer.status, headers, answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path)[2])

    def await_model(self, condition: Callable[[Any], bool], seconds: float = 30) -> Any:
        """What `/v1/model` says as soon as it fulfils a condition."""
        deadline = time.monotonic() + seconds
        while not condition(model := self.get("/v1/model")):
            assert time.monotonic() < deadline, model
        return model

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if "Ctrl-C" in line:
                self._ready.set()
        self._ready.set()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def launch(variables: Mapping[str, str] | None = None, **options: Any) -> Service:
    """Start a service on a free port, with variables of the environment."""
    port = options.setdefault("port", free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
    if not variables or "RAY_ADDRESS" not in variables:
        environment.pop("RAY_ADDRESS", None)
    arguments = [sys.executable, "-c", CODE, json.dumps(options, default=str)]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/")
    return Service(process, port)


class Load:
    """Callers that ask without pause; what they were answered."""

    def __init__(self, port: int, callers: int) -> None:
        self.answers: list[tuple[int, str]] = []
        self.seen: dict[str, threading.Event] = {}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(port,)) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def await_model(self, ref: str, seconds: float = 30) -> None:
        """Until the next answers all come from a model: from every replica, as callers are spread over them."""
        deadline = time.monotonic() + seconds
        since = len(self.answers)
        while len(self.answers) < since + IN_A_ROW or any(model != ref for _, model in self.answers[-IN_A_ROW:]):
            assert time.monotonic() < deadline, f"Not all answers come from {ref}: {self.answers[-5:]}"
            self._stopping.wait(0.02)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps(EXAMPLE)
        while not self._stopping.is_set():
            try:
                connection.request("POST", "/v1/predict", body)
                answer = connection.getresponse()
                content = answer.read()
                self.answers.append((answer.status, json.loads(content)["model"] if answer.status == 200 else content.decode()))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((0, repr(error)))
                connection.close()


@contextmanager
def load_on(service: Service, callers: int = 4) -> Iterator[Load]:
    load = Load(service.port, callers)
    try:
        yield load
    finally:
        load.stop()
