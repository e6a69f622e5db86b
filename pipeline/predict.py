"""Batch scoring: raw records in, labels and probabilities out, by workers that each load the model once."""

from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import ray

from nightprice.address import parse_address
from pipeline import progress
from pipeline.cluster.arrow_tasks import map_tables
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


def score_block(
    raw: pa.Table, files: "ray.ObjectRef[ModelFiles]", contract: Contract, missing_values: tuple[str, ...]
) -> pa.Table:
    """One block of raw rows as a tagged table of scored rows; a worker process loads the model with its first block."""
    artifact = shipped(files)
    encoder = Encoder(contract, artifact.vocabulary)
    cleaned = clean(raw, contract, encoder=encoder, missing_values=missing_values)
    return tag(score(cleaned.accepted, artifact, encoder), cleaned.rejected, cleaned.warnings)


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
    # The files, not the alias: all workers score with one model even if another is promoted meanwhile.
    block = partial(score_block, files=ship(artifact), contract=contract, missing_values=settings.missing_values)
    scored = map_tables(raw.rows, block)
    scored.set_name("predict")
    progress.begin("scoring", tasks=raw.tasks)
    with write(target, scored, rejected_schema(contract), contract.key) as staged:
        _check_known(artifact, staged, settings.max_rejected)
        check_written(staged, origin, contract, settings.max_rejected)
        manifest = describe_run(staged, raw, contract, settings, started)
        manifest["model"] = artifact.ref
        manifest["label"] = artifact.label.as_json()
        staged.publish(manifest)
    return manifest
