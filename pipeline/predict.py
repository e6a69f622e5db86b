"""Batch scoring: raw records in, labels and probabilities out, by a pool of actors that hold the model."""

from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from nightprice.address import parse_address
from pipeline.cluster.arrow_tasks import RETRIES, retried
from pipeline.cluster.session import on_ray
from pipeline.cluster.shared_folder import check_sink
from pipeline.cluster.shipping import ModelFiles, ship, shipped
from pipeline.errors import GateRefused
from pipeline.io import Staged, read, tag, write
from pipeline.io.files.locate import check_apart
from pipeline.manifests import DatasetManifest
from pipeline.run import check_written, describe_run
from pipeline.settings import Settings
from registry.artifact import Artifact
from registry.registry import Registry
from registry.replacement import some
from transforms.clean import clean, rejected_schema
from transforms.contract import UNKNOWN, Contract
from transforms.encode import Encoder
from transforms.scored import MODEL, scored_columns


def score(accepted: pa.Table, artifact: Artifact, encoder: Encoder) -> pa.Table:
    """The scored columns of cleaned rows (`transforms.scored`), and the model."""
    contract = encoder.contract
    probabilities = artifact.predict(encoder.table(accepted))
    columns = scored_columns(contract, artifact.labels, accepted[contract.key], probabilities)
    return pa.table({**columns, MODEL: pa.repeat(artifact.ref, len(accepted))})


def _check_known(artifact: Artifact, staged: Staged, max_rejected: float) -> None:
    """Raise GateRefused if the model does not know one field's values in more than `max_rejected` of the rows."""
    stats = staged.stats
    for reason, rows in stats.reasons.most_common():
        name, _, problem = reason.partition(":")
        if problem == UNKNOWN and rows > max_rejected * stats.read:
            raise GateRefused(
                f"{artifact.ref} does not know the {name} of {rows:,} of {stats.read:,} rows: it knows "
                f"{some(artifact.vocabulary[name])}. It was trained on other data: name the model of these rows. They "
                f"are kept at {staged.rejected_at}; what was live stays live."
            )


class Scorer:
    """An actor that loads a model once and scores block after block."""

    def __init__(self, files: "ray.ObjectRef[ModelFiles]", contract: Contract, missing_values: tuple[str, ...]) -> None:
        self._artifact = shipped(files)
        self._missing_values = missing_values
        self._encoder = Encoder(contract, self._artifact.vocabulary)

    def __call__(self, raw: pa.Table) -> pa.Table:
        encoder = self._encoder
        cleaned = clean(raw, encoder.contract, encoder=encoder, missing_values=self._missing_values)
        return tag(score(cleaned.accepted, self._artifact, encoder), cleaned.rejected, cleaned.warnings)


@on_ray
def predict(model: str, source: str, sink: str, settings: Settings) -> DatasetManifest:
    """Score raw records with a model; rows that can't be scored are rejected with their reasons.

    Returns the manifest of the scored rows. Raises as `process` does, and what the registry raises about the model.
    """
    started = datetime.now(UTC)
    origin, target = parse_address(source), parse_address(sink)
    check_apart(origin, target)
    check_sink(target)
    artifact = Registry(settings.registry, str(settings.cache_dir)).load(model)
    contract = settings.load_contract()
    artifact.require(contract)
    raw = read(origin, partial(contract.choose_columns, with_target=False))
    # Where it would take the last CPU that is free, nobody could read for it.
    cpus = 1 if ray.available_resources().get("CPU", 0) >= 2 else 0
    with retried():
        scored = raw.rows.map_batches(
            Scorer,
            # The files, not the alias: all actors score with one model even if another is promoted meanwhile.
            fn_constructor_kwargs={
                "files": ship(artifact),
                "contract": contract,
                "missing_values": settings.missing_values,
            },
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
    with write(target, scored, rejected_schema(contract), contract.key) as staged:
        _check_known(artifact, staged, settings.max_rejected)
        check_written(staged, origin, contract, settings.max_rejected)
        manifest = describe_run(staged, raw, contract, settings, started)
        manifest["model"] = artifact.ref
        manifest["label"] = artifact.label.as_json()
        staged.publish(manifest)
    return manifest
