"""Training on a million listings: 1 and 2 workers, beside plain XGBoost on the same matrix; `make bench-train`.

The dataset is generated and processed first, unmeasured. Every run takes the same rows, features, parameters and number
of rounds, without early stopping. `train` also reads the dataset, learns its vocabulary, exports and checks the
model, and evaluates it on the holdout; plain XGBoost finds its matrix in memory and only trains.
"""

import argparse
import os
from functools import partial

from benchmarks.measure import Benchmark, begin, finish, report, save
from pipeline.settings import Settings, XGBoostSettings

CPUS = 2


def compare(options: argparse.Namespace) -> None:
    """Measure all and report."""
    BENCHMARK.measure("prepare", options)
    results = [BENCHMARK.measure(name, options) for name in BENCHMARK.runs if name != "prepare"]
    rounds = options.rounds
    report(f"Training XGBoost, {rounds} rounds", results)
    for item in results:
        print(f"{item.name}: {dict(item.notes)}")
    print(f"written to {save('train', results, rounds=rounds)}")


def settings(options: argparse.Namespace) -> Settings:
    """The default parameters, but a fixed number of rounds."""
    rounds = XGBoostSettings(rounds=options.rounds, early_stopping_rounds=options.rounds)
    return Settings(registry=str(options.folder / "registry"), xgboost=rounds)


def prepare(options: argparse.Namespace) -> None:
    """Generate and process; the rows go through the same two commands that a user types."""
    from pipeline.cluster import session
    from transforms.listings.generate import generate

    session.start(CPUS)
    from pipeline.process import process

    started = begin()
    folder, rows = options.folder, options.rows
    generate(rows, folder / "raw", shards=-(-rows // 100_000), bad_rows=0)
    manifest = process(str(folder / "raw"), str(folder / "dataset"), settings(options))
    finish(started, accepted=manifest["rows"]["accepted"])


def with_ray(options: argparse.Namespace, workers: int) -> None:
    """`train` as a whole, on a warm cluster."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.train.train import train
    from registry.registry import Registry

    chosen = settings(options)
    started = begin()
    done = train(str(options.folder / "dataset"), workers=workers, registry=chosen.registry, settings=chosen)
    training = Registry(chosen.registry).manifest(done["model"])["training"]
    finish(started, accuracy=round(done["metrics"]["accuracy"], 4), **training)
    ray.shutdown()


def plain(options: argparse.Namespace) -> None:
    """XGBoost alone: float32 matrix in memory, bins, boosting. Its split and codes are those of the model trained
    before.
    """
    import time

    import numpy as np
    import pyarrow.parquet as pq
    import xgboost

    from pipeline.split import Split, is_validation
    from pipeline.train.boosting import class_weights, parameters
    from pipeline.train.encoded_rows import label_positions
    from registry.registry import Registry
    from transforms.encode import Encoder
    from transforms.listings import CONTRACT

    chosen = settings(options)
    registry = Registry(chosen.registry)
    model = registry.load(f"{CONTRACT.name}@latest")
    (accepted,) = options.folder.glob("dataset/versions/*/accepted")
    table = pq.read_table(accepted)
    ids = table["id"].to_numpy()
    features = Encoder(CONTRACT, model.vocabulary).table(table)
    labels = label_positions(table[CONTRACT.label_name], model.labels)
    del table
    holdout, validation = (
        Split(chosen.holdout_share).is_holdout(ids),
        is_validation(ids, chosen.xgboost.validation_share),
    )
    weights = np.array(class_weights(np.bincount(labels[~holdout]).tolist(), chosen.xgboost.class_balance))[labels]
    training = ~holdout & ~validation
    started = begin()
    matrix = xgboost.QuantileDMatrix(
        features[training], labels[training], weight=weights[training], max_bin=chosen.xgboost.max_bin
    )
    watched = ~holdout & validation
    watch = xgboost.QuantileDMatrix(features[watched], labels[watched], weight=weights[watched], ref=matrix)
    given = parameters(chosen, len(model.labels)) | {"nthread": os.cpu_count()}
    booster = xgboost.train(given, matrix, options.rounds, evals=[(watch, "validation")], verbose_eval=False)
    seconds = time.perf_counter() - started
    accuracy = (booster.inplace_predict(features[holdout]).argmax(axis=1) == labels[holdout]).mean()
    finish(started, seconds=seconds, accuracy=round(float(accuracy), 4))


BENCHMARK = Benchmark(
    "benchmarks.train",
    __doc__,
    {
        "prepare": prepare,
        "1 worker": partial(with_ray, workers=1),
        "2 workers": partial(with_ray, workers=2),
        "plain XGBoost": plain,
    },
)

if __name__ == "__main__":
    BENCHMARK.main(compare, "the dataset and the models, some 500 MB", rows=1_000_000, rounds=100)
