"""Seconds from a command to its result on one small file, as multiples of a bare start of Ray; `make bench-start`.

A weekly run is four such commands, so what each pays before and after its work counts. The bare start imports Ray and
Ray Data, starts Ray on this machine and ends it.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress

from benchmarks.measure import machine, save_json
from nightprice.ray_environment import LOCAL_PIPELINE, PIPELINE, configure
from pipeline.cli.render import render_table

BARE = "bare start"
_BARE = """
import ray, ray.data
ray.init(address="local", include_dashboard=False, log_to_driver=False)
ray.shutdown()
"""
MODEL = "listing-price@champion"
COMMANDS = {
    "process": ["process", "--source", "raw", "--sink", "dataset"],
    "train": ["train", "--data", "dataset"],
    "evaluate": ["evaluate", "--model", "listing-price@latest", "--data", "dataset", "--holdout"],
    "predict": ["predict", "--model", "listing-price@latest", "--source", "raw", "--sink", "scored"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_500)
    parser.add_argument("--repeat", type=int, default=3, help="times; the best counts")
    parser.add_argument("--port", type=int, default=8099, help="of the service")
    options = parser.parse_args()
    configure(PIPELINE, LOCAL_PIPELINE)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="nightprice-bench-") as folder:
        os.environ["PYTHONPATH"] = os.getcwd()
        os.chdir(folder)
        _run(_pipeline("generate", "--rows", str(options.rows), "--out", "raw"))
        for number in range(options.repeat):
            seconds.setdefault(BARE, []).append(_run([sys.executable, "-c", _BARE]))
            for name, arguments in COMMANDS.items():
                seconds.setdefault(name, []).append(_run(_pipeline(*arguments)))
            _run(_pipeline("promote", "listing-price@latest", "--force"))
            seconds.setdefault("serve, until it is ready", []).append(_until_ready(options.port))
            seconds.setdefault("demo", []).append(_run(_pipeline("demo", "--out", f"demo-{number}")))
        os.chdir(os.environ["PYTHONPATH"])
    best = {name: min(times) for name, times in seconds.items()}
    rows = [(name, f"{value:.1f}", f"{value / best[BARE]:.2f}") for name, value in best.items()]
    from rich.console import Console

    heads = ("seconds", "× a bare start")
    Console().print(render_table(f"{options.rows:,} rows", ("", *heads), rows, numbers=heads))
    print(f"written to {save_json('start', {'machine': machine(), 'rows': options.rows, 'seconds': seconds})}")


def _pipeline(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", *arguments]


def _run(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed with exit code {done.returncode}:\n{done.stderr[-2_000:]}")
    return time.perf_counter() - started


def _until_ready(port: int) -> float:
    started = time.perf_counter()
    command = _pipeline("serve", "--model", MODEL, "--port", str(port))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        while not _is_ready(port):
            if service.poll() is not None:
                raise RuntimeError(f"The service ended with exit code {service.returncode}.")
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        service.send_signal(signal.SIGINT)
    return seconds


def _is_ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


if __name__ == "__main__":
    main()
