"""The service beside the notebook's Flask, bare uvicorn and Ray Serve's defaults; `make bench-serve`.

One-row requests by wrk, on this same machine, to one service after the other; then bulk requests to ours, beside the
same
model scoring the same rows in this process with the same one thread.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from benchmarks.measure import MIB, machine, proportional, save_json
from benchmarks.serve_models import FOREST, accepted, champion
from serve_app.http.wire import ARROW, JSON
from transforms.listings import CONTRACT

CONNECTIONS = (1, 16, 64)
BULK_ROWS = 10_000
START_SECONDS = 240.0
SERVICES = {
    "a": "notebook: Flask, gunicorn, 2 workers",
    "b": "our app, uvicorn, 1 worker",
    "c": "our app, Ray Serve's defaults",
    "d": "ours, 1 replica that stays",
    "e": "ours, autoscaled, but 1 replica suffices",
}


@dataclass(frozen=True)
class Load:
    """What wrk saw of one service."""

    service: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    requests: int


@dataclass(frozen=True)
class Bulk:
    """Rows a second, one request after the other."""

    way: str
    rows_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument(
        "--only",
        default="abcde",
        help="which services, as in bd: " + "; ".join(f"{k} {v}" for k, v in SERVICES.items()),
    )
    parser.add_argument(
        "--folder", type=Path, help="where the models are kept for the next time [default: a temporary folder]"
    )
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.exit(1, "wrk is missing. Install it: sudo apt-get install wrk\n")
    with prepared(options.folder) as folder:
        compare(folder, options.only, options.seconds)


@contextmanager
def prepared(kept: Path | None) -> Iterator[Path]:
    """A folder with the models: `kept`, or one that is removed afterwards."""
    folder = (kept or Path(tempfile.mkdtemp(prefix="nightprice-bench-"))).absolute()
    try:
        if not (folder / FOREST).exists():
            print("training the models …", flush=True)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.serve_models", str(folder)], check=True, stdout=subprocess.DEVNULL
            )
        yield folder
    finally:
        if not kept:
            shutil.rmtree(folder)


def compare(folder: Path, only: str, seconds: float) -> None:
    """Measure, print and save."""
    loads: list[Load] = []
    bulks: list[Bulk] = []
    starts: dict[str, dict[str, float]] = {}
    for key in only:
        print(f"{SERVICES[key]} …", flush=True)
        with running(key, folder) as (port, process, started):
            wrk(key, port, CONNECTIONS[1], 2)
            loads += [wrk(key, port, connections, seconds) for connections in CONNECTIONS]
            starts[key] = {"start_seconds": round(started, 1), "memory_mib": round(_memory(process.pid) / MIB)}
            if key == "d":
                bulks = _bulk(port, folder, seconds)
    ratios = _ratios({(item.service, item.connections): item for item in loads}, {item.way: item for item in bulks})
    _show(loads, bulks, starts, ratios)
    results = {
        "loads": [asdict(item) for item in loads],
        "bulk": [asdict(item) for item in bulks],
        "services": starts,
        "ratios": ratios,
    }
    print(f"written to {save_json('serve', {'machine': machine(), **results})}")


@contextmanager
def running(key: str, folder: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]", float]]:
    """A service in processes of its own: its port, process, and the seconds it took from nothing to ready."""
    from benchmarks.notebook_service import MODEL_VARIABLE
    from tests.support.ports import free_port

    port, registry = free_port(), str(folder / "registry")
    ours = ["-m", "pipeline", "serve", "--registry", registry, "--port", str(port)]
    flask = ["-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", "benchmarks.notebook_service:app()"]
    bare = ["-m", "benchmarks.bare", registry, str(port)]
    replicas = {"c": "1", "d": "1", "e": "2"}
    arguments = {"a": flask, "b": bare}.get(key) or [*ours, "--max-replicas", replicas[key]]
    variables = {
        "c": {"RAY_SERVE_ENABLE_HA_PROXY": "0"},
        # A second replica would share these cores with the first one: what is asked for is the price of counting.
        "e": {"NIGHTPRICE_SERVE_TARGET_ONGOING_REQUESTS": "1000"},
    }
    environment = os.environ | {MODEL_VARIABLE: str(folder / FOREST)} | variables.get(key, {})
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=said, stderr=said)
        try:
            if not _await_ready(process, port):
                said.seek(0)
                raise RuntimeError(f"{SERVICES[key]} did not start:\n{said.read().decode(errors='replace')[-3000:]}")
            yield port, process, time.perf_counter() - began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _await_ready(process: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass  # nobody listens yet
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def wrk(key: str, port: int, connections: int, seconds: float) -> Load:
    """Raises RuntimeError if wrk fails or any answer is not 200."""
    script = str(Path(__file__).with_name("post.lua"))
    url = f"http://127.0.0.1:{port}/v1/predict"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", script, url]
    ran = subprocess.run(
        command,
        env=os.environ | {"BENCH_BODY": json.dumps(CONTRACT.example)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.partition("figures: ")[2])
    if found["errors"]:
        raise RuntimeError(
            f"{SERVICES[key]}: {found['errors']} failed requests at {connections} connections.\n{ran.stdout}"
        )
    return Load(
        key,
        connections,
        found["requests"] / found["seconds"],
        found["p50_ms"],
        found["p99_ms"],
        found["errors"],
        found["requests"],
    )


def _bulk(port: int, folder: Path, seconds: float) -> list[Bulk]:
    """The same rows as JSON, as an Arrow stream, and as a matrix in this process."""
    from transforms.encode import Encoder

    table = accepted(folder).slice(0, BULK_ROWS).drop_columns([CONTRACT.target, CONTRACT.label_name]).combine_chunks()
    listings = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    model = champion(folder)
    matrix = Encoder(CONTRACT, model.vocabulary).table(table)
    ways: dict[str, Callable[[], Any]] = {
        "in process": lambda: model.predict(matrix),
        "Arrow": lambda: _post(port, sink.getvalue().to_pybytes(), ARROW),
        "JSON": lambda: _post(port, body, JSON),
    }
    body = json.dumps({"listings": listings}).encode()
    return [Bulk(way, len(table) / _seconds_each(work, seconds)) for way, work in ways.items()]


def _post(port: int, body: bytes, content_type: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/predict/batch", body, {"Content-Type": content_type})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{content_type}: {answer.status} {content[:300]!r}")


def _seconds_each(work: Callable[[], Any], seconds: float) -> float:
    work()
    began, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not times:
        work()
        times += 1
    return passed / times if times else passed


def _memory(pid: int) -> int:
    root = psutil.Process(pid)
    return sum(map(proportional, [root, *root.children(recursive=True)]))


def _ratios(loads: dict[tuple[str, int], Load], bulks: dict[str, Bulk]) -> dict[str, float]:
    """Ours by each of the others, as far as they were measured."""
    found = {}
    for (other, connections), load in loads.items():
        if other != "d" and ("d", connections) in loads:
            ours, its = loads["d", connections].requests_per_second, load.requests_per_second
            name, ratio = ("e/d", its / ours) if other == "e" else (f"d/{other}", ours / its)
            found[f"{name} at {connections}"] = round(ratio, 2)
    for way in ("Arrow", "JSON"):
        if way in bulks:
            found[f"{way}/in process"] = round(bulks[way].rows_per_second / bulks["in process"].rows_per_second, 2)
    return found


def _show(loads: list[Load], bulks: list[Bulk], starts: dict[str, dict[str, float]], ratios: dict[str, float]) -> None:
    from rich.console import Console

    from pipeline.cli.render import render_table

    heads = ("connections", "requests/s", "p50 ms", "p99 ms", "start s", "MiB")
    body = [
        (
            SERVICES[item.service],
            item.connections,
            f"{item.requests_per_second:,.1f}",
            f"{item.p50_ms:.2f}",
            f"{item.p99_ms:.2f}",
            *starts[item.service].values(),
        )
        for item in loads
    ]
    console = Console(width=110)
    console.print(render_table("One-row requests", ("", *heads), body, numbers=heads))
    if bulks:
        rows = [(item.way, round(item.rows_per_second)) for item in bulks]
        console.print(render_table(f"{BULK_ROWS:,} rows a request", ("", "rows/s"), rows, numbers=("rows/s",)))
    print(*(f"{name}: {value}" for name, value in ratios.items()), sep="\n")


if __name__ == "__main__":
    main()
