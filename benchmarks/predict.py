"""Batch scoring: `predict` beside plain XGBoost and plain ONNX Runtime on the finished matrix; `make bench-predict`.

`predict` also reads, cleans, encodes and writes. A model of a single split takes no time to score, so what `predict`
takes with it is counted apart: the difference is the scoring. The plain ones find their matrix in memory and have as
many threads as `predict` has CPUs. At last once more on four times as many rows: its memory must not grow with them.
"""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serve_models
from benchmarks.measure import Benchmark, Measured, begin, finish, report, save
from transforms.listings import CONTRACT

CPUS = 2
WARM_UP_ROWS = 200_000
PLAIN_BATCH_ROWS = 65_536
STUMP = "stump"


def compare(options: argparse.Namespace) -> None:
    """Measure all and report."""
    from benchmarks.raw_shards import write_shards

    folder, rows = options.folder, options.rows
    what = write_shards(folder / "shards", rows, generated=True)
    write_shards(folder / "warm-up", WARM_UP_ROWS, generated=True)
    print(f"{rows:,} raw listings: {what}", flush=True)
    _measure("prepare", options)
    results = [_measure(name, options) for name in BENCHMARK.runs if name != "prepare"]
    more_rows = options.more_rows or 4 * rows
    write_shards(folder / "more", more_rows, generated=True)
    results.append(_measure("predict", options, source="more", rows=more_rows))
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


def _measure(name: str, options: argparse.Namespace, **changed: Any) -> Measured:
    measured = BENCHMARK.measure(name, options, **changed)
    shutil.rmtree(options.folder / "scored", ignore_errors=True)
    return measured


def prepare(options: argparse.Namespace) -> None:
    """The champion, a model of one split, a booster like the champion, and the matrix of the rows."""
    started = begin()
    folder: Path = options.folder
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
    finish(started, cleaning_and_encoding=_matrix(folder, options.source))


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


def with_ray(options: argparse.Namespace, model: str) -> None:
    """`predict` as a whole, on a cluster that has run it once."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.predict import predict
    from pipeline.settings import Settings

    folder: Path = options.folder
    settings = Settings(max_rejected=1.0, registry=str(folder / "registry"))
    predict(model, str(folder / "warm-up"), str(folder / "scored" / "warm-up"), settings)
    started = begin()
    rows = predict(model, str(folder / options.source), str(folder / "scored" / "all"), settings)["rows"]
    finish(started, **rows)
    ray.shutdown()


def plain_xgboost(options: argparse.Namespace) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=options.folder / "booster.ubj")
    booster.set_param({"nthread": CPUS})
    _plain(options.folder, booster.inplace_predict)


def plain_onnx(options: argparse.Namespace) -> None:
    from registry.registry import Registry

    registry = Registry(str(options.folder / "registry"))
    _plain(options.folder, registry.load(f"{CONTRACT.name}@champion", threads=CPUS).predict)


def _plain(folder: Path, score: Callable[[Any], Any]) -> None:
    matrix = np.load(folder / "matrix.npy")
    score(matrix[:PLAIN_BATCH_ROWS])
    started = begin()
    for start in range(0, len(matrix), PLAIN_BATCH_ROWS):
        score(matrix[start : start + PLAIN_BATCH_ROWS])
    finish(started, rows=len(matrix))


BENCHMARK = Benchmark(
    "benchmarks.predict",
    __doc__,
    {
        "prepare": prepare,
        "predict": partial(with_ray, model=f"{CONTRACT.name}@champion"),
        "predict without scoring": partial(with_ray, model=f"{STUMP}@latest"),
        "plain XGBoost": plain_xgboost,
        "plain ONNX Runtime": plain_onnx,
    },
)

if __name__ == "__main__":
    BENCHMARK.main(compare, "shards and results, some 4 GB", rows=2_000_000, more_rows=0)
