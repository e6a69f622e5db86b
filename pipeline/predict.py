"""Batch scoring: raw records in, labels and probabilities out, by a pool of actors that hold the model."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from nightprice.address import without_password
from pipeline.cluster.arrow_tasks import RETRIES, retried
from pipeline.cluster.session import on_ray
from pipeline.cluster.shipping import ModelFiles, ship, shipped
from pipeline.io import files, read, write
from pipeline.io import tagged_blocks as parts
from pipeline.io.stores import Manifest, StoreError
from pipeline.process import check_rejected, describe_run
from pipeline.provenance import describe_sources
from pipeline.settings import Settings
from registry.artifact import Artifact
from registry.registry import Registry
from transforms.clean import clean
from transforms.contract import Contract
from transforms.encode import Encoder


def probability_column(label: str) -> str:
    """The column of scored rows that holds the probability of a category."""
    return f"probability_{label}"


def score(accepted: pa.Table, artifact: Artifact, encoder: Encoder) -> pa.Table:
    """The result for each cleaned row: key, label, one probability column a label (float32), model."""
    contract = encoder.contract
    probabilities = artifact.predict(encoder.table(accepted))
    best = probabilities.argmax(axis=1) if len(accepted) else np.empty(0, np.int64)
    columns = {
        contract.key: accepted[contract.key],
        contract.label_name: pa.array(artifact.labels, pa.string()).take(pa.array(best)),
        **{
            probability_column(label): pa.array(probabilities[:, position])
            for position, label in enumerate(artifact.labels)
        },
        "model": pa.array([artifact.ref] * len(accepted), pa.string()),
    }
    return pa.table(columns)


class Scorer:
    """An actor that loads a model once and scores block after block."""

    def __init__(self, files: "ray.ObjectRef[ModelFiles]", contract: Contract) -> None:
        self._artifact = shipped(files)
        self._encoder = Encoder(contract, self._artifact.vocabulary)

    def __call__(self, raw: pa.Table) -> pa.Table:
        cleaned = clean(raw, self._encoder.contract, encoder=self._encoder)
        return parts.join(score(cleaned.accepted, self._artifact, self._encoder), cleaned.rejected, cleaned.warnings)


@on_ray
def predict(model: str, source: str, sink: str, settings: Settings) -> Manifest:
    """Score raw records with a model; rows that can't be scored land in the rejected part with their reasons.

    Returns the manifest of the scored rows. Raises as `process` does, and what the registry raises about the model.
    """
    started = datetime.now(UTC)
    files.check_apart(source, sink)
    artifact = Registry(settings.registry, str(settings.cache_dir)).load(model)
    contract = settings.load_contract()
    artifact.require(contract)
    sources = describe_sources(source)
    records = read(source, partial(contract.choose_columns, with_target=False))
    # Where it would take the last CPU that is free, nobody could read for it.
    cpus = 1 if ray.available_resources().get("CPU", 0) >= 2 else 0
    with retried():
        scored = records.map_batches(
            Scorer,
            # The files, not the alias: all actors score with one model even if another is promoted meanwhile.
            fn_constructor_kwargs={"files": ship(artifact), "contract": contract},
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
    seal = partial(
        _seal,
        source=source,
        sources=sources,
        settings=settings,
        contract=contract,
        started=started,
        artifact=artifact,
    )
    return write(scored, sink, seal)


def _seal(
    tally: parts.Tally,
    version: str,
    rejected_at: str,
    *,
    source: str,
    sources: list[dict[str, Any]],
    settings: Settings,
    contract: Contract,
    started: datetime,
    artifact: Artifact,
) -> Manifest:
    if not tally.read:
        raise StoreError(
            f'"{without_password(source)}" holds no rows: nothing was published. Check that it is the right address.'
        )
    check_rejected(tally, settings.max_rejected, rejected_at)
    return describe_run(tally, version, sources, settings, contract, started) | {
        "model": artifact.ref,
        "label": artifact.label.as_json(),
    }
