"""Memory of a replica over a million requests; `make bench-memory`.

One-row requests by wrk, 16 connections; the resident memory of the one replica at the start and after each part.
"""

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.measure import MIB, machine, save_json
from benchmarks.serve import prepared, running, wrk

REQUESTS = 1_000_000
MARKS = (0.1, 0.25, 0.5, 1.0)
CONNECTIONS = 16
# wrk ends after a time, not a number: parts of this length, until the number is reached.
PART_SECONDS = 10.0


@dataclass(frozen=True)
class Held:
    """What the replica held after so many requests."""

    requests: int
    replica_mib: float
    haproxy_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many in all")
    parser.add_argument(
        "--folder", type=Path, help="where the models are kept for the next time [default: a temporary folder]"
    )
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.exit(1, "wrk is missing. Install it: sudo apt-get install wrk\n")
    with prepared(options.folder) as folder:
        held = list(watch(folder, options.requests))
    growth = held[-1].replica_mib - held[1].replica_mib
    print(f"grown by {growth:+.1f} MiB between {held[1].requests:,} and {held[-1].requests:,} requests")
    print(f"written to {save_json('serve_memory', {'machine': machine(), 'held': [asdict(item) for item in held]})}")


def watch(folder: Path, requests: int) -> Iterator[Held]:
    """The memory at the start and at each mark, printed as it is seen."""
    with running("d", folder) as (port, process, _):
        done = 0
        for mark in (0.0, *MARKS):
            while done < mark * requests:
                done += wrk("d", port, CONNECTIONS, PART_SECONDS).requests
            found = Held(done, _resident(process.pid, "ServeReplica"), _resident(process.pid, "haproxy"))
            print(
                f"{found.requests:>9,} requests: replica {found.replica_mib:6.1f} MiB, HAProxy "
                f"{found.haproxy_mib:5.1f} MiB",
                flush=True,
            )
            yield found


def _resident(pid: int, name: str) -> float:
    """Of all processes below `pid` whose command line holds a name."""
    below = psutil.Process(pid).children(recursive=True)
    resident: int = sum(process.memory_info().rss for process in below if name in " ".join(process.cmdline()))
    return resident / MIB


if __name__ == "__main__":
    main()
