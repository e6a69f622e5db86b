"""Time and memory of one run in a process of its own."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path("bench-results")
# Adding up the shares of a dozen processes takes tens of milliseconds of a core: seldom enough not to slow what is
# measured.
SAMPLE_SECONDS = 0.5
MIB = 2**20
_MARK = "measured: "


@dataclass(frozen=True)
class Measured:
    """What one run took. Memory is the proportional set size of the whole process tree: shared pages count once."""

    name: str
    rows: int
    seconds: float
    idle_mib: float
    """Held before the measured part began: the interpreter, libraries, a Ray cluster."""
    peak_mib: float
    """Held at most while the measured part ran."""
    notes: Mapping[str, Any]

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    def as_json(self) -> dict[str, Any]:
        return self.__dict__ | {"rows_per_second": round(self.rows_per_second)}


def run_measured(name: str, arguments: Sequence[str], rows: int) -> Measured:
    """Run `python -m …` and sample its memory; what it runs calls `begin()`, and at last `finish(…)`.

    Raises RuntimeError with the end of its output when it fails.
    """
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen([sys.executable, "-m", *arguments], **pipes) as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        errors: list[str] = []
        drain = threading.Thread(target=errors.extend, args=(child.stderr,))
        drain.start()
        said = []
        sampler = _Sampler(child.pid)
        for line in child.stdout:
            if line.startswith(_MARK):
                said.append(json.loads(line.removeprefix(_MARK)))
                if len(said) == 1:
                    sampler.start()
                    print(file=child.stdin, flush=True)
                else:
                    sampler.stop()
        drain.join()
    if child.returncode or len(said) != 2:
        raise RuntimeError(f"{name} failed with exit code {child.returncode}:\n{''.join(errors[-30:])}")
    notes = said[1]
    return Measured(name, rows, notes.pop("seconds"), sampler.idle / MIB, sampler.peak / MIB, notes)


@dataclass(frozen=True)
class Benchmark:
    """Runs of one workload, each in a process of its own, with one scratch folder for all."""

    module: str
    description: str
    runs: Mapping[str, Callable[[argparse.Namespace], None]]
    """By name. Their options are those of the command, with `folder`, the scratch folder, and `source`, a name in it.
    """

    def main(self, compare: Callable[[argparse.Namespace], None], scratch: str, **numbers: int) -> None:
        """The command: `compare`, or one of the runs. `scratch` says what the folder takes; `numbers` are options with
        their defaults.
        """
        parser = argparse.ArgumentParser(description=self.description)
        for name, default in numbers.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help="[default: %(default)s]")
        parser.add_argument("--scratch", type=Path, help=f"folder for {scratch} [default: the system's]")
        parser.add_argument("--run", choices=self.runs, help=argparse.SUPPRESS)
        parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
        parser.add_argument("--source", default="shards", help=argparse.SUPPRESS)
        options = parser.parse_args()
        if options.run:
            self.runs[options.run](options)
            return
        options.folder = Path(tempfile.mkdtemp(prefix="nightprice-bench-", dir=options.scratch))
        try:
            compare(options)
        finally:
            shutil.rmtree(options.folder)

    def measure(self, name: str, options: argparse.Namespace, **changed: Any) -> Measured:
        """One run, with some options changed."""
        print(f"{name} …", flush=True)
        given = vars(options) | {"run": name} | changed
        arguments = [f"--{option.replace('_', '-')}={value}" for option, value in given.items() if value is not None]
        return run_measured(f"{name}, {given['rows']:,} rows", [self.module, *arguments], given["rows"])


def begin() -> float:
    """Called by the measured process when all is warm: waits for the sampler, and returns the time."""
    print(_MARK + "{}", flush=True)
    sys.stdin.readline()
    return time.perf_counter()


def finish(started: float, **notes: Any) -> None:
    """Called by the measured process at the end of the measured part; `seconds` among the notes stands for the time
    until now.
    """
    print(_MARK + json.dumps({"seconds": time.perf_counter() - started, **notes}), flush=True)


class _Sampler(threading.Thread):
    """Samples the memory of a process and all that descend from it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._stopped = threading.Event()
        self.idle = self.peak = 0

    def start(self) -> None:
        self.idle = self.peak = self._total()
        super().start()

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self._total())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _total(self) -> int:
        return sum(map(proportional, [self._root, *self._root.children(recursive=True)]))


def proportional(process: psutil.Process) -> int:
    """The bytes of a process, shared pages counted in part; 0 if it is gone."""
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    # Only Linux knows the proportional size; elsewhere what is a process's own comes closest.
    return int(getattr(memory, "pss", memory.uss))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("numpy", "pandas", "polars", "pyarrow", "ray", "scikit-learn")},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def report(title: str, results: Sequence[Measured]) -> None:
    """Print the results side by side."""
    from rich.console import Console

    from pipeline.cli.render import render_table

    heads = ("rows", "seconds", "rows/s", "peak MiB", "of it idle before")
    body = [
        (
            item.name,
            item.rows,
            f"{item.seconds:.2f}",
            round(item.rows_per_second),
            round(item.peak_mib),
            round(item.idle_mib),
        )
        for item in results
    ]
    Console(width=110).print(render_table(title, ("", *heads), body, numbers=heads))


def save(name: str, results: Sequence[Measured], **more: Any) -> Path:
    """Write the results as JSON and return the file."""
    return save_json(name, {"machine": machine(), "results": [item.as_json() for item in results], **more})


def save_json(name: str, data: Mapping[str, Any]) -> Path:
    """Write any results as JSON and return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    return path
