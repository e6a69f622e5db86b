"""How cost grows with shards, nodes, training workers and replicas; `make bench-scale` (needs root, and wrk).

Everything on this machine: nodes are network namespaces that share its cores. More of them do not make it faster then;
what is seen is what each of them costs, and who does how much of the work of one request.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import machine, save_json
from pipeline.cli.render import render_table
from transforms.listings.generate import generate

SHARDS, NODES, WORKERS, REPLICAS = (1, 4, 16), (1, 2, 4), (1, 2, 4), (1, 2, 4)
CONNECTIONS = 16
ROUNDS = {"NIGHTPRICE_XGBOOST__ROUNDS": "50", "NIGHTPRICE_XGBOOST__EARLY_STOPPING_ROUNDS": "50"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=8, help="of load on each number of replicas")
    parser.add_argument("--only", default="shards,cluster,replicas", help="what to measure")
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "shards": lambda folder: shards(folder, options.rows),
        "cluster": lambda folder: cluster_sizes(folder, options.rows),
        "replicas": lambda folder: replicas(folder, options.seconds),
    }
    results: dict[str, Any] = {}
    for name in options.only.split(","):
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="nightprice-bench-") as folder:
            results |= parts[name](Path(folder))
    show(results)
    print(f"written to {save_json('scale', {'machine': machine(), 'rows': options.rows, **results})}")


def shards(folder: Path, rows: int) -> dict[str, Any]:
    """Seconds of `process` on the same rows in more and more files, on a warm cluster of two CPUs."""
    from pipeline.cluster import session

    session.start(2)
    import ray

    from pipeline.process import process
    from pipeline.settings import Settings

    seconds: dict[int, float] = {}
    for number in (SHARDS[-1], *SHARDS):  # the first one warms up
        generate(rows, folder / f"raw-{number}-{len(seconds)}", shards=number)
        began = time.perf_counter()
        process(str(folder / f"raw-{number}-{len(seconds)}"), str(folder / "dataset"), Settings())
        seconds[number] = time.perf_counter() - began
    ray.shutdown()
    return {"process by shards": {number: seconds[number] for number in SHARDS}}


def cluster_sizes(folder: Path, rows: int) -> dict[str, Any]:
    """Seconds of the commands `process`, on more and more nodes, and `train`, with more and more workers."""
    from tests.support.cluster.ray_cluster import cluster

    processed, trained = {}, {}
    with cluster(folder, 0) as ours:
        generate(rows, ours.shared / "raw", shards=16)
        for number in NODES:
            ours.restore(number)
            processed[number] = _seconds(lambda: ours.must("process", "--source", "/mnt/raw", "--sink", "/mnt/dataset"))
        for number in WORKERS:
            arguments = ("train", "--data", "/mnt/dataset", "--workers", number, "--registry", "/mnt/models")
            trained[number] = _seconds(lambda: ours.must(*arguments, **ROUNDS))  # noqa: B023
    return {"process by nodes": processed, "train by workers": trained}


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def replicas(folder: Path, seconds: float) -> dict[str, Any]:
    """Requests a second, and milliseconds of CPU of each kind of process for a thousand requests."""
    from benchmarks.serve import wrk
    from tests.support.serving.models import registry_with
    from tests.support.serving.service import launch, stopped_at_the_end
    from tests.support.tiny_model import FIRST

    registry = registry_with(folder, [FIRST], boosted=True)
    rates, costs = {}, {}
    for number in REPLICAS:
        with stopped_at_the_end(launch(registry=registry.uri, min_replicas=number, num_cpus=0.4)) as service:
            wrk("d", service.port, CONNECTIONS, 2)
            with _cpu_seconds(service.process.pid) as spent:
                load = wrk("d", service.port, CONNECTIONS, seconds)
            rates[number] = load.requests_per_second
            costs[number] = {kind: 1e6 * used / load.requests for kind, used in spent.items()}
    return {"requests/s by replicas": rates, "CPU ms for 1,000 requests by replicas": costs}


@contextmanager
def _cpu_seconds(root: int) -> Iterator[Counter[str]]:
    """Filled at the end of the block: what the processes below one have used, by kind."""
    spent: Counter[str] = Counter()
    before = _used(root)
    yield spent
    spent.update(_used(root))
    spent.subtract(before)


def _used(root: int) -> Counter[str]:
    used: Counter[str] = Counter()
    for process in psutil.Process(root).children(recursive=True):
        line = " ".join(process.cmdline())
        kind = "replicas" if "ServeReplica" in line else "HAProxy" if "haproxy" in line else "Ray's others"
        times = process.cpu_times()
        used[kind] += times.user + times.system
    return used


def show(results: dict[str, Any]) -> None:
    from rich.console import Console

    for title, values in results.items():
        cells = [(str(number), _cell(value)) for number, value in values.items()]
        Console().print(render_table(title, ("", "measured"), cells, numbers=("measured",)))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{kind} {each:,.0f}" for kind, each in value.items())
    return f"{value:,.1f}"


if __name__ == "__main__":
    main()
