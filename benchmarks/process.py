"""Processing raw listings: the notebook's pandas, Polars with the same rules, and `process`; `make bench-process`.

Each runs in a process of its own on the same Parquet shards, one after the other. `process` runs on a warm cluster
with 2 CPUs, then once more on four times as many rows: its peak memory must not grow with them.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.measure import Benchmark, Measured, begin, finish, report, save
from transforms.listings import PRICE_BANDS

CPUS = 2
# Enough for every worker to have run some of it before.
WARM_UP_ROWS = 500_000


def compare(options: argparse.Namespace) -> None:
    """Measure all and report."""
    from benchmarks.raw_shards import write_shards

    folder: Path = options.folder
    what = write_shards(folder / "shards", options.rows)
    write_shards(folder / "warm-up", WARM_UP_ROWS)
    print(f"{options.rows:,} raw listings: {what}", flush=True)
    results = [_measure(name, options) for name in BENCHMARK.runs]
    more_rows = options.more_rows or 4 * options.rows
    write_shards(folder / "more", more_rows)
    results.append(_measure("process", options, source="more", rows=more_rows))
    report("Processing raw listings", results)
    notebook, polars, ours, more = results
    figures = {
        "times_the_notebooks_rows_per_second": round(ours.rows_per_second / notebook.rows_per_second, 2),
        "share_of_polars_rows_per_second": round(ours.rows_per_second / polars.rows_per_second, 2),
        "peak_memory_with_more_rows": round(more.peak_mib / ours.peak_mib, 2),
    }
    print(*(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()), sep="\n")
    print(f"written to {save('process', results, input=what, figures=figures)}")


def _measure(name: str, options: argparse.Namespace, **changed: Any) -> Measured:
    out = options.folder / "out"
    out.mkdir()
    measured = BENCHMARK.measure(name, options, **changed)
    shutil.rmtree(out)
    return measured


def run_notebook(options: argparse.Namespace) -> None:
    from benchmarks.peers import notebook

    started = begin()
    finish(started, kept=notebook(options.folder / options.source, options.folder / "out"))


def run_polars(options: argparse.Namespace) -> None:
    from benchmarks.peers import polars

    started = begin()
    accepted, rejected = polars(options.folder / options.source, options.folder / "out", PRICE_BANDS)
    finish(started, accepted=accepted, rejected=rejected)


def run_process(options: argparse.Namespace) -> None:
    """On a cluster that has run it once, as one that works all day."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.process import process
    from pipeline.settings import Settings

    settings = Settings(max_rejected=1.0)
    folder: Path = options.folder
    process(str(folder / "warm-up"), str(folder / "out" / "warm-up"), settings)
    started = begin()
    counts = process(str(folder / options.source), str(folder / "out" / "dataset"), settings)["rows"]
    finish(started, accepted=counts["accepted"], rejected=counts["rejected"])
    ray.shutdown()


BENCHMARK = Benchmark(
    "benchmarks.process",
    __doc__,
    {"notebook": run_notebook, "polars": run_polars, "process": run_process},
)

if __name__ == "__main__":
    BENCHMARK.main(compare, "shards and results, some 3 GB", rows=2_000_000, more_rows=0)
