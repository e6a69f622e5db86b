"""What hostile requests do to a service; `make attack`.

Every attack of the list, connections that stall, requests made from the service's own document and mutated ones, one
after the other, to a service on a demo model or to the one at --url. A well-behaved caller asks meanwhile.
"""

import argparse
import http.client
import json
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.hostile import BATCH, PREDICT, HostileRequest, attacks, mutated
from benchmarks.measure import MIB, machine, save_json
from tests.support.serving.requests import EXAMPLE

TIMEOUT_S = 120.0
SAMPLE_SECONDS = 0.1
STALLED = 40


@dataclass
class Seen:
    """What came of a kind of requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    """0 stands for no answer."""
    slowest_s: float = 0.0
    slowest: str = ""

    def add(self, name: str, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a running service [default: one that is started on a demo model]")
    parser.add_argument("--pid", type=int, help="of the replica of --url, whose memory is measured")
    parser.add_argument("--requests", type=int, default=2_000, help="how many mutated ones")
    parser.add_argument("--documented", type=int, default=100, help="how many of each route of its document")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutated one")
    parser.add_argument("--size", type=float, default=1.0, help="of the attacks, as a part of the whole")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds until memory is looked at once more")
    parser.add_argument("--folder", type=Path, help="where the models are kept for the next time")
    options = parser.parse_args()
    with ExitStack() as stack:
        url, pid = (options.url, options.pid) if options.url else stack.enter_context(own_service(options.folder))
        results = attack(url, pid, options)
    show(results)
    print(f"written to {save_json('attack', {'machine': machine(), **results})}")


@contextmanager
def own_service(folder: Path | None) -> Iterator[tuple[str, int]]:
    """The address of a service on a demo model, and the process of its one replica."""
    from benchmarks.serve import prepared, running
    from tests.support.serving.service import replicas_of

    with prepared(folder) as models, running("d", models) as (port, process, _):
        (pid,) = replicas_of(process.pid)
        yield f"http://127.0.0.1:{port}", pid


def attack(url: str, pid: int | None, options: argparse.Namespace) -> dict[str, Any]:
    """Send everything; what was seen, as JSON."""
    kinds: dict[str, Iterable[HostileRequest]] = {
        "attacks": attacks(options.size),
        "mutated": map(mutated, range(options.seed, options.seed + options.requests)),
    }
    seen: dict[str, Seen] = {}
    send_documented(url, 1)  # idle is a service that has answered at every route
    with Caller(url) as caller, Memory(pid) as memory:
        for kind, requests in kinds.items():
            seen[kind] = send_all(url, requests)
        seen["from the document"] = send_documented(url, options.documented)
        seen["stalled"] = stall(url, options.size)
    time.sleep(options.rest if pid else 0)
    return {
        "seen": {kind: one.__dict__ | {"statuses": dict(sorted(one.statuses.items()))} for kind, one in seen.items()},
        "caller_p99_ms": round(caller.p99_ms(), 1),
        "caller_failures": caller.failures,
        "memory_mib": memory.mib(),
    }


def send_all(url: str, requests: Iterable[HostileRequest]) -> Seen:
    """One after the other."""
    seen = Seen()
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        for request in requests:
            ask = partial(client.post, request.path, content=request.body, headers=dict(request.headers))
            _send(seen, f"{request.name} {request.path}", ask)
    return seen


def send_documented(url: str, examples: int) -> Seen:
    """So many requests to every route of the service's document, right and wrong ones."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    seen, schema = Seen(), schemathesis.openapi.from_url(f"{url}/openapi.json")
    quietly = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    with httpx.Client(timeout=TIMEOUT_S) as client:

        def send(case: Any) -> None:
            made = case.as_transport_kwargs(base_url=url)
            body = made.get("data") or (json.dumps(made["json"]) if made.get("json") is not None else b"")
            headers = {"content-type": made["headers"].get("Content-Type", "application/json")}
            ask = partial(client.request, case.method, made["url"], content=body, headers=headers)
            _send(seen, f"{case.method} {case.path}", ask)

        operations: Any = schema.get_all_operations()
        for operation in operations:
            for_each: Any = given(operation.ok().as_strategy())
            quietly(for_each(send))()
    return seen


def _send(seen: Seen, name: str, ask: Callable[[], httpx.Response]) -> None:
    started, status = time.perf_counter(), 0
    with suppress(httpx.HTTPError, httpx.InvalidURL):
        status = ask().status_code
    seen.add(name, status, time.perf_counter() - started)


def stall(url: str, size: float) -> Seen:
    """Bodies that are declared and sent in part, and headers and trailers without an end."""
    seen = Seen()
    body, part = int(32 * MIB * size), b" " * int(20 * MIB * size)
    head = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n".encode()
    endless = [b"x" * MIB] * max(1, int(140 * size))
    chunks = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nX-Long: ".encode()
    )
    ways = {"a header": [b"GET /healthz HTTP/1.1\r\nX-Long: ", *endless], "a trailer": [chunks, *endless]}
    jobs = [("half a body", [head, part])] * STALLED + list(ways.items())
    threads = [threading.Thread(target=_stall, args=(seen, name, urlsplit(url), parts)) for name, parts in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _stall(seen: Seen, name: str, url: Any, parts: Iterable[bytes]) -> None:
    started, answer = time.perf_counter(), b""
    with suppress(OSError), socket.create_connection((url.hostname, url.port or 80), timeout=TIMEOUT_S) as connection:
        for part in parts:
            connection.sendall(part)
        answer = connection.recv(4_096)
    status = int(answer[9:12]) if answer[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ") and answer[9:12].isdigit() else 0
    seen.add(name, status, time.perf_counter() - started)


class _Repeated:
    """Something that a thread does again and again within the block."""

    def __enter__(self) -> Any:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_S)

    def _repeat(self) -> None:
        while not self._stopping.wait(self.once()):
            pass

    def once(self) -> float:
        """Do it; the seconds until the next time."""
        raise NotImplementedError


class Caller(_Repeated):
    """Asks for one prediction after the other."""

    def __init__(self, url: str) -> None:
        self._address, self._body = urlsplit(url), json.dumps(EXAMPLE)
        self.seconds: list[float] = []
        self.failures = 0

    def once(self) -> float:
        started = time.perf_counter()
        connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", PREDICT, self._body, {"Content-Type": "application/json"})
            self.failures += connection.getresponse().status != 200
        except (OSError, http.client.HTTPException):
            self.failures += 1
        finally:
            connection.close()
        self.seconds.append(time.perf_counter() - started)
        return 0.01

    def p99_ms(self) -> float:
        return 1_000 * (statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else float("nan"))


class Memory(_Repeated):
    """The resident memory of a process: at the start, the peak since then, and now."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid) if pid else None
        self.idle = self.peak = self._resident()

    def once(self) -> float:
        self.peak = max(self.peak, self._resident())
        return SAMPLE_SECONDS

    def mib(self) -> dict[str, float]:
        return {
            "idle": self.idle,
            "peak above idle": self.peak - self.idle,
            "afterwards above idle": self._resident() - self.idle,
        }

    def _resident(self) -> float:
        """0 without a process, or when it is gone: a replica that died is replaced by another."""
        with suppress(psutil.NoSuchProcess):
            return round(self._process.memory_info().rss / MIB, 1) if self._process else 0.0
        return 0.0


def show(results: Mapping[str, Any]) -> None:
    """The table."""
    from rich.console import Console

    from pipeline.cli.render import render_table

    statuses = sorted(set(chain.from_iterable(one["statuses"] for one in results["seen"].values())))
    heads = (*(str(status or "none") for status in statuses), "5xx", "slowest s")
    rows = [(kind, *_counts(one, statuses), one["slowest"]) for kind, one in results["seen"].items()]
    console = Console(width=130)
    console.print(render_table("Answers by status", ("", *heads, "which"), rows, numbers=heads))
    print(f"a well-behaved caller meanwhile: p99 {results['caller_p99_ms']} ms, {results['caller_failures']} failures")
    print("replica, MiB: " + ", ".join(f"{name} {value:,.1f}" for name, value in results["memory_mib"].items()))


def _counts(one: Mapping[str, Any], statuses: list[int]) -> list[Any]:
    found: Mapping[int, int] = one["statuses"]
    faults = sum(count for status, count in found.items() if status >= 500 and status != 503)
    return [*(found.get(status, 0) for status in statuses), faults, round(one["slowest_s"], 2)]


if __name__ == "__main__":
    main()
