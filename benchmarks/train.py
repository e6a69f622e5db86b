"""Training on a million listings: 1 and 2 workers, beside plain XGBoost on the same matrix; `make bench-train`.

The dataset is generated and processed first, unmeasured. Every run takes the same rows, features, parameters and number
of rounds, without early stopping. `train` also reads the dataset, learns its vocabulary, exports and checks the
model, and
evaluates it on the holdout; plain XGBoost finds its matrix in memory and only trains.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Measured, begin, finish, report, run_measured, save
from pipeline.settings import Settings, XGBoostSettings

CPUS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--scratch", type=Path, help="folder for the dataset and the models, some 500 MB [default: the system's]"
    )
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        RUNS[options.run](options.folder, options.rounds)
        return
    folder = Path(tempfile.mkdtemp(prefix="nightprice-bench-", dir=options.scratch))
    try:
        compare(folder, options.rows, options.rounds)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, rows: int, rounds: int) -> None:
    """Measure all and report."""
    (folder / "rows").write_text(str(rows))
    _measure("prepare", folder, rows, rounds)
    results = [_measure(name, folder, rows, rounds) for name in RUNS if name != "prepare"]
    report(f"Training XGBoost, {rounds} rounds", results)
    for item in results:
        print(f"{item.name}: {dict(item.notes)}")
    print(f"written to {save('train', results, rounds=rounds)}")


def _measure(name: str, folder: Path, rows: int, rounds: int) -> Measured:
    print(f"{name} …", flush=True)
    return run_measured(
        name, ["benchmarks.train", "--run", name, "--folder", str(folder), "--rounds", str(rounds)], rows
    )


def settings(folder: Path, rounds: int) -> Settings:
    """The default parameters, but a fixed number of rounds."""
    return Settings(
        registry=str(folder / "registry"), xgboost=XGBoostSettings(rounds=rounds, early_stopping_rounds=rounds)
    )


def prepare(folder: Path, _: int) -> None:
    """Generate and process; the rows go through the same two commands that a user types."""
    from pipeline.cluster import session
    from transforms.listings.generate import generate

    session.start(CPUS)
    from pipeline.process import process

    started = begin()
    rows = int((folder / "rows").read_text())
    generate(rows, folder / "raw", shards=-(-rows // 100_000), bad_rows=0)
    manifest = process(str(folder / "raw"), str(folder / "dataset"), settings(folder, 1))
    finish(started, accepted=manifest["rows"]["accepted"])


def with_ray(folder: Path, rounds: int, workers: int) -> None:
    """`train` as a whole, on a warm cluster."""
    from pipeline.cluster import session

    session.start(CPUS)
    import ray

    from pipeline.train.train import train
    from registry.registry import Registry

    chosen = settings(folder, rounds)
    started = begin()
    done = train(str(folder / "dataset"), workers=workers, registry=chosen.registry, settings=chosen)
    training = Registry(chosen.registry).manifest(done["model"])["training"]
    finish(started, accuracy=round(done["metrics"]["accuracy"], 4), **training)
    ray.shutdown()


def plain(folder: Path, rounds: int) -> None:
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

    chosen = settings(folder, rounds)
    registry = Registry(chosen.registry)
    model = registry.load(f"{CONTRACT.name}@latest")
    (accepted,) = folder.glob("dataset/versions/*/accepted")
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
    options = parameters(chosen, len(model.labels)) | {"nthread": os.cpu_count()}
    booster = xgboost.train(options, matrix, rounds, evals=[(watch, "validation")], verbose_eval=False)
    seconds = time.perf_counter() - started
    accuracy = (booster.inplace_predict(features[holdout]).argmax(axis=1) == labels[holdout]).mean()
    finish(started, seconds=seconds, accuracy=round(float(accuracy), 4))


RUNS: dict[str, Callable[[Path, int], None]] = {
    "prepare": prepare,
    "1 worker": partial(with_ray, workers=1),
    "2 workers": partial(with_ray, workers=2),
    "plain XGBoost": plain,
}

if __name__ == "__main__":
    main()
