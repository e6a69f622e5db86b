"""How an autoscaled service follows a step in the load and back; `make bench-autoscale`.

One to --replicas replicas. After a promotion and the death of a replica under load the callers stop. Printed: the
seconds until each number of replicas, and every answer that was not 200.
"""

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, save_json
from pipeline.cli.render import render_table
from registry.registry import Registry
from tests.support.serving.models import registry_with
from tests.support.serving.service import Service, launch, load_on, stopped_at_the_end
from tests.support.tiny_model import FIRST, NAME, SECOND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3, help="at most")
    parser.add_argument("--callers", type=int, default=16, help="that ask without pause")
    parser.add_argument("--downscale-delay", type=float, default=10.0, help="seconds of low load before replicas go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightprice-bench-") as folder, service(Path(folder), options) as running:
        results = follow(running, Path(folder), options.replicas, options.callers)
    rows = [(what, f"{seconds:.1f}") for what, seconds in results["seconds"].items()]
    from rich.console import Console

    Console().print(render_table(f"1 to {options.replicas} replicas", ("", "seconds"), rows, numbers=("seconds",)))
    print(f"answers: {results['answers']}, connections that ended without one: {results['without_answer']}")
    print(f"written to {save_json('autoscale', {'machine': machine(), **results})}")


@contextmanager
def service(folder: Path, options: argparse.Namespace) -> Iterator[Service]:
    """A service on small models, whose replicas share the CPUs of this machine."""
    registry = registry_with(folder, [FIRST, SECOND], boosted=True)
    cpus = round((os.cpu_count() or 1) / options.replicas - 0.05, 2)
    launched = launch(
        registry=registry.uri,
        min_replicas=1,
        max_replicas=options.replicas,
        num_cpus=min(1.0, cpus),
        downscale_delay_s=options.downscale_delay,
        poll_seconds=1.0,
    )
    with stopped_at_the_end(launched) as running:
        yield running


def follow(running: Service, folder: Path, replicas: int, callers: int) -> dict[str, Any]:
    """A step in the load, a promotion, the death of a replica, and no load."""
    seconds: dict[str, float] = {}
    with load_on(running, callers) as load:
        began = time.perf_counter()
        for number in range(2, replicas + 1):
            running.await_replicas(lambda pids, number=number: len(pids) >= number)  # type: ignore[misc]
            seconds[f"load until {number} replicas"] = time.perf_counter() - began
        began = time.perf_counter()
        Registry(str(folder / "registry")).promote(NAME, SECOND, "champion", "benchmark")
        load.await_model(f"{NAME}@{SECOND}")
        seconds["promotion until every replica has it"] = time.perf_counter() - began
        began, killed = time.perf_counter(), min(running.replicas())
        os.kill(killed, signal.SIGKILL)
        running.await_replicas(lambda pids: killed not in pids and len(pids) >= replicas)
        seconds[f"death of one until {replicas} again"] = time.perf_counter() - began
        load.await_more(1_000)
    began = time.perf_counter()
    running.await_replicas(lambda pids: len(pids) == 1)
    seconds["no load until 1 replica"] = time.perf_counter() - began
    answers = Counter(status for status, _ in load.answers)
    without_answer = answers.pop(0, 0)
    return {"seconds": seconds, "answers": dict(answers), "without_answer": without_answer}


if __name__ == "__main__":
    main()
