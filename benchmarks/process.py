"""Processing raw listings: the notebook's pandas, Polars with the same rules, and `process`; `make bench-process`.

Each runs in a process of its own on the same Parquet shards, one after the other. `process` runs on a warm cluster
with 2
CPUs, then once more on four times as many rows: its peak memory must not grow with them.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Measured, begin, finish, report, run_measured, save
from transforms.listings import PRICE_BANDS

CPUS = 2
# Enough for every worker to have run some of it before.
WARM_UP_ROWS = 500_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument(
        "--more-rows", type=int, help="rows of the second run of `process` [default: four times as many]"
    )
    parser.add_argument("--scratch", type=Path, help="folder for shards and results, some 3 GB [default: the system's]")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        RUNS[options.run](options.source, options.out)
        return
    folder = Path(tempfile.mkdtemp(prefix="nightprice-bench-", dir=options.scratch))
    try:
        compare(folder, options.rows, options.more_rows or 4 * options.rows)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, rows: int, more_rows: int) -> None:
    """Measure all and report."""
    from benchmarks.raw_shards import write_shards

    what = write_shards(folder / "shards", rows)
    write_shards(folder / "warm-up", WARM_UP_ROWS)
    print(f"{rows:,} raw listings: {what}", flush=True)
    results = [_measure(name, folder, "shards", rows) for name in RUNS]
    write_shards(folder / "more", more_rows)
    results.append(_measure("process", folder, "more", more_rows))
    report("Processing raw listings", results)
    notebook, polars, ours, more = results
    figures = {
        "times_the_notebooks_rows_per_second": round(ours.rows_per_second / notebook.rows_per_second, 2),
        "share_of_polars_rows_per_second": round(ours.rows_per_second / polars.rows_per_second, 2),
        "peak_memory_with_more_rows": round(more.peak_mib / ours.peak_mib, 2),
    }
    print(*(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()), sep="\n")
    print(f"written to {save('process', results, input=what, figures=figures)}")


def _measure(name: str, folder: Path, source: str, rows: int) -> Measured:
    out = folder / "out"
    out.mkdir()
    arguments = ["benchmarks.process", "--run", name, "--source", str(folder / source), "--out", str(out)]
    measured = run_measured(f"{name}, {rows:,} rows", arguments, rows)
    shutil.rmtree(out)
    return measured


def run_notebook(source: Path, out: Path) -> None:
    from benchmarks.peers import notebook

    started = begin()
    finish(started, kept=notebook(source, out))


def run_polars(source: Path, out: Path) -> None:
    from benchmarks.peers import polars

    started = begin()
    accepted, rejected = polars(source, out, PRICE_BANDS)
    finish(started, accepted=accepted, rejected=rejected)


def run_process(source: Path, out: Path) -> None:
    """On a cluster that has run it once, as one that works all day."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.process import process
    from pipeline.settings import Settings

    settings = Settings(max_rejected=1.0)
    process(str(source.parent / "warm-up"), str(out / "warm-up"), settings)
    started = begin()
    counts = process(str(source), str(out / "dataset"), settings)["rows"]
    finish(started, accepted=counts["accepted"], rejected=counts["rejected"])
    ray.shutdown()


RUNS: dict[str, Callable[[Path, Path], None]] = {"notebook": run_notebook, "polars": run_polars, "process": run_process}

if __name__ == "__main__":
    main()
