"""Batch scoring: `predict` beside plain XGBoost and plain ONNX Runtime on the finished matrix; `make bench-predict`.

`predict` also reads, cleans, encodes and writes. A model of a single split takes no time to score, so what `predict`
takes with it is counted apart: the difference is the scoring. The plain ones find their matrix in memory and have as
many threads as `predict` has CPUs. At last once more on four times as many rows: its memory must not grow with them.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serve_models
from benchmarks.measure import Measured, begin, finish, report, run_measured, save
from transforms.listings import CONTRACT

CPUS = 2
WARM_UP_ROWS = 200_000
PLAIN_BATCH_ROWS = 65_536
STUMP = "stump"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--more-rows", type=int, help="of the second run [default: four times as many]")
    parser.add_argument("--scratch", type=Path, help="folder for shards and results, some 4 GB [default: the system's]")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--source", default="shards", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        RUNS[options.run](options.folder, options.source)
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
    _measure("prepare", folder, "shards", rows)
    results = [_measure(name, folder, "shards", rows) for name in RUNS if name != "prepare"]
    write_shards(folder / "more", more_rows)
    results.append(_measure("predict", folder, "more", more_rows))
    report("Scoring raw listings", results)
    ours, without, xgboost, onnx, more = results
    scoring = ours.seconds - without.seconds
    faster = min(xgboost.seconds, onnx.seconds)
    figures = {
        "seconds_of_scoring": round(scoring, 2),
        "rows_per_second_of_scoring": round(rows / scoring),
        "share_of_the_faster_plain_one": round(faster / scoring, 2),
        "peak_memory_with_more_rows": round(more.peak_mib / ours.peak_mib, 2),
    }
    print(*(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()), sep="\n")
    print(f"written to {save('predict', results, input=what, figures=figures)}")


def _measure(name: str, folder: Path, source: str, rows: int) -> Measured:
    print(f"{name} …", flush=True)
    arguments = ["benchmarks.predict", "--run", name, "--folder", str(folder), "--source", source]
    measured = run_measured(f"{name}, {rows:,} rows", arguments, rows)
    shutil.rmtree(folder / "scored", ignore_errors=True)
    return measured


def prepare(folder: Path, source: str) -> None:
    """The champion, a model of one split, a booster like the champion, and the matrix of the rows."""
    started = begin()
    serve_models.prepare(folder)
    from pipeline.cluster import session
    from pipeline.settings import Settings, XGBoostSettings
    from pipeline.train.train import train

    session.start(CPUS)
    import ray

    registry = str(folder / "registry")
    one = Settings(registry=registry, model_name=STUMP, xgboost=XGBoostSettings(rounds=1, max_depth=1))
    train(str(folder / "dataset"), registry=registry, settings=one)
    ray.shutdown()
    booster_like(folder).save_model(folder / "booster.ubj")
    finish(started, cleaning_and_encoding=_matrix(folder, source))


def booster_like(folder: Path) -> Any:
    """A booster with the champion's parameters and as many rounds, of all its rows."""
    import xgboost

    from pipeline.settings import Settings
    from pipeline.train.boosting import parameters
    from pipeline.train.encoded_rows import label_positions
    from transforms.encode import Encoder

    champion, table = serve_models.champion(folder), serve_models.accepted(folder)
    features = Encoder(CONTRACT, champion.vocabulary).table(table)
    labels = label_positions(table[CONTRACT.label_name], champion.labels)
    options = parameters(Settings(), len(champion.labels))
    rounds = champion.manifest["training"]["rounds"]
    return xgboost.train(options, xgboost.QuantileDMatrix(features, labels), rounds)


def _matrix(folder: Path, source: str) -> float:
    """Save the feature vectors of all rows; returns the seconds of cleaning and encoding in one process."""
    import time

    import pyarrow as pa
    import pyarrow.parquet as pq

    from transforms.clean import clean
    from transforms.encode import Encoder

    encoder = Encoder(CONTRACT, serve_models.champion(folder).vocabulary)
    parts, seconds = [], 0.0
    for path in sorted((folder / source).iterdir()):
        for batch in pq.ParquetFile(path).iter_batches(columns=list(CONTRACT.raw_columns)):
            started = time.perf_counter()
            parts.append(encoder.table(clean(pa.Table.from_batches([batch]), CONTRACT, encoder=encoder).accepted))
            seconds += time.perf_counter() - started
    np.save(folder / "matrix.npy", np.concatenate(parts))
    return round(seconds, 1)


def with_ray(folder: Path, source: str, model: str) -> None:
    """`predict` as a whole, on a cluster that has run it once."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.predict import predict
    from pipeline.settings import Settings

    settings = Settings(max_rejected=1.0, registry=str(folder / "registry"))
    predict(model, str(folder / "warm-up"), str(folder / "scored" / "warm-up"), settings)
    started = begin()
    rows = predict(model, str(folder / source), str(folder / "scored" / "all"), settings)["rows"]
    finish(started, **rows)
    ray.shutdown()


def plain_xgboost(folder: Path, source: str) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=folder / "booster.ubj")
    booster.set_param({"nthread": CPUS})
    _plain(folder, booster.inplace_predict)


def plain_onnx(folder: Path, source: str) -> None:
    from registry.registry import Registry

    _plain(folder, Registry(str(folder / "registry")).load(f"{CONTRACT.name}@champion", threads=CPUS).predict)


def _plain(folder: Path, score: Callable[[Any], Any]) -> None:
    matrix = np.load(folder / "matrix.npy")
    score(matrix[:PLAIN_BATCH_ROWS])
    started = begin()
    for start in range(0, len(matrix), PLAIN_BATCH_ROWS):
        score(matrix[start : start + PLAIN_BATCH_ROWS])
    finish(started, rows=len(matrix))


RUNS: dict[str, Callable[[Path, str], None]] = {
    "prepare": prepare,
    "predict": partial(with_ray, model=f"{CONTRACT.name}@champion"),
    "predict without scoring": partial(with_ray, model=f"{STUMP}@latest"),
    "plain XGBoost": plain_xgboost,
    "plain ONNX Runtime": plain_onnx,
}

if __name__ == "__main__":
    main()
