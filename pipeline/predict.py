"""Batch scoring: raw listings in, categories and probabilities out, by a pool of actors that hold the model."""

from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from nightprice.address import parse_address
from pipeline.cluster.arrow_tasks import RETRIES, retried
from pipeline.cluster.session import ray_errors
from pipeline.cluster.shipping import ModelFiles, ship, shipped
from pipeline.io import read, tag, write
from pipeline.io.files.locate import check_apart
from pipeline.manifests import DatasetManifest
from pipeline.process import KEY
from pipeline.run import check_written, describe_run
from pipeline.settings import Settings
from registry.artifact import Artifact
from registry.registry import Registry
from transforms.clean import REJECTED_SCHEMA, clean
from transforms.contract import CATEGORY, raw_columns
from transforms.encode import encode_table


def probability_column(label: str) -> str:
    """The column of scored rows that holds the probability of a category."""
    return f"probability_{label}"


def score(accepted: pa.Table, artifact: Artifact) -> pa.Table:
    """The result for each cleaned row: id, category, one probability column a category (float32), model."""
    probabilities = artifact.predict(encode_table(accepted, artifact.vocabulary))
    best = probabilities.argmax(axis=1) if len(accepted) else np.empty(0, np.int64)
    columns = {
        "id": accepted["id"],
        CATEGORY: pa.array(artifact.labels, pa.string()).take(pa.array(best)),
        **{
            probability_column(label): pa.array(probabilities[:, position])
            for position, label in enumerate(artifact.labels)
        },
        "model": pa.array([artifact.ref] * len(accepted), pa.string()),
    }
    return pa.table(columns)


class Scorer:
    """An actor that loads a model once and scores block after block."""

    def __init__(self, files: "ray.ObjectRef[ModelFiles]") -> None:
        self._artifact = shipped(files)

    def __call__(self, raw: pa.Table) -> pa.Table:
        cleaned = clean(raw, known=self._artifact.vocabulary)
        return tag(score(cleaned.accepted, self._artifact), cleaned.rejected, cleaned.warnings)


def predict(model: str, source: str, sink: str, settings: Settings) -> DatasetManifest:
    """Score raw listings with a model; rows that can't be scored are rejected with their reasons.

    Returns the manifest of the scored rows. Raises as `process` does, and what the registry raises about the model.
    """
    started = datetime.now(UTC)
    origin, target = parse_address(source), parse_address(sink)
    check_apart(origin, target)
    artifact = Registry(settings.registry, str(settings.cache_dir)).load(model)
    with ray_errors():
        raw = read(origin, partial(raw_columns, with_price=False))
        # Where it would take the last CPU that is free, nobody could read for it.
        cpus = 1 if ray.available_resources().get("CPU", 0) >= 2 else 0
        with retried():
            scored = raw.rows.map_batches(
                Scorer,
                # The files, not the alias: all actors score with one model even if another is promoted meanwhile.
                fn_constructor_kwargs={"files": ship(artifact)},
                batch_format="pyarrow",
                batch_size=None,
                zero_copy_batch=True,
                # Else Ray Data starts an actor again without end. A block is tried as often as its
                # actor starts; to count its tries, too,
                # would use them up while a node is dead and Ray does not know it yet.
                max_restarts=RETRIES,
                num_cpus=cpus,
                compute=ActorPoolStrategy(min_size=1, max_size=max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)),
            )
        scored.set_name("predict")
        with write(target, scored, REJECTED_SCHEMA, KEY) as staged:
            check_written(staged, origin, settings.max_rejected)
            manifest = describe_run(staged, raw, KEY, settings, started)
            manifest["model"] = artifact.ref
            manifest["pricing"] = artifact.pricing.as_json()
            staged.publish(manifest)
    return manifest
