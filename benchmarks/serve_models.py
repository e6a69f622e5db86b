"""What the service's benchmark serves: the champion and the notebook's forest, from the same generated listings."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from registry.artifact import Artifact
from registry.registry import Registry
from transforms.listings import CONTRACT

ROWS = 40_000
FOREST = "forest.pkl"


def prepare(folder: Path) -> None:
    """Generate, process and train with the commands' own functions; the forest last, which marks the folder as
    whole.
    """
    from pipeline.cluster import session

    session.start(2)
    import ray

    from benchmarks.notebook_service import fit
    from pipeline.process import process
    from pipeline.settings import Settings
    from pipeline.train.train import train
    from transforms.listings.generate import generate

    settings = Settings(registry=str(folder / "registry"))
    generate(ROWS, folder / "raw", shards=4)
    process(str(folder / "raw"), str(folder / "dataset"), settings)
    trained = train(str(folder / "dataset"), registry=settings.registry, settings=settings)
    Registry(settings.registry).promote(CONTRACT.name, trained["model"].partition("@")[2], "champion", "benchmark")
    ray.shutdown()
    (folder / FOREST).write_bytes(fit(accepted(folder)))


def accepted(folder: Path) -> pa.Table:
    """The accepted listings of the dataset."""
    (found,) = folder.glob("dataset/versions/*/accepted")
    return pq.read_table(found)


def champion(folder: Path) -> Artifact:
    """The model that is served, with one thread as in a replica."""
    return Registry(str(folder / "registry")).load("listing-price@champion", threads=1)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
