"""Raw records in, a dataset out: one pass, in parallel, published all or nothing."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import ray

from nightprice.address import without_password
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.session import on_ray
from pipeline.errors import GateRefused
from pipeline.io import files
from pipeline.io import tagged_blocks as parts
from pipeline.io.stores import Manifest, StoreError, read, write
from pipeline.provenance import code_version, describe_sources, library_versions
from pipeline.settings import Settings
from transforms.clean import clean
from transforms.contract import Contract, Label


@on_ray
def process(source: str, sink: str, settings: Settings) -> Manifest:
    """Read raw records, split them by the contract, write both parts, publish; returns the manifest.

    Raises StoreError or ContractError when source or sink can't be used, GateRefused when more than
    `settings.max_rejected` of the rows were rejected. What was live at the sink then stays live.
    """
    started = datetime.now(UTC)
    files.check_apart(source, sink)
    contract = settings.load_contract()
    label = settings.label(contract)
    sources = describe_sources(source)
    cleaned = map_tables(read(source, contract.choose_columns), partial(clean_block, contract=contract, label=label))
    cleaned.set_name("process")
    seal = partial(
        _seal, source=source, sources=sources, settings=settings, contract=contract, label=label, started=started
    )
    return write(cleaned, sink, seal)


def clean_block(raw: pa.Table, contract: Contract, label: Label) -> pa.Table:
    """One block of raw rows as a parted table."""
    cleaned = clean(raw, contract, label)
    if len(cleaned.accepted) + len(cleaned.rejected) != len(raw):
        raise AssertionError(
            f"{len(raw)} rows became {len(cleaned.accepted)} accepted and {len(cleaned.rejected)} rejected"
        )
    return parts.join(cleaned.accepted, cleaned.rejected, cleaned.warnings)


def _seal(
    tally: parts.Tally,
    version: str,
    rejected_at: str,
    *,
    source: str,
    sources: list[dict[str, Any]],
    settings: Settings,
    contract: Contract,
    label: Label,
    started: datetime,
) -> Manifest:
    if not tally.read:
        raise StoreError(
            f'"{without_password(source)}" holds no rows: nothing was published. Check that it is the right address.'
        )
    check_rejected(tally, settings.max_rejected, rejected_at)
    return describe_run(tally, version, sources, settings, contract, started) | {"label": label.as_json()}


def check_rejected(tally: parts.Tally, limit: float, rejected_at: str) -> None:
    """Raise GateRefused if more than the share `limit` of the rows was rejected, with the most frequent reasons."""
    share = tally.rejected / tally.read
    if share > limit:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in tally.reasons.most_common(3))
        raise GateRefused(
            f"{tally.rejected:,} of {tally.read:,} rows ({share:.1%}) were rejected, more than the {limit:.1%} "
            f"allowed: {reasons}. "
            f"They are kept at {rejected_at}; what was live stays live. Mend the source, or raise --max-rejected."
        )


def describe_run(
    tally: parts.Tally,
    version: str,
    sources: list[dict[str, Any]],
    settings: Settings,
    contract: Contract,
    started: datetime,
) -> Manifest:
    """The manifest of a run: what was read, what became of it, and with what."""
    repeats = tally.id_sketch.repeats(tally.accepted)
    warnings = dict(tally.warnings) | ({f"{contract.key}:repeated": repeats} if repeats else {})
    return {
        "version": version,
        "rows": {"read": tally.read, "accepted": tally.accepted, "rejected": tally.rejected},
        "reasons": dict(tally.reasons.most_common()),
        "warnings": warnings,
        "sources": sources,
        "contract": contract.ref,
        "settings": settings.model_dump(mode="json"),
        "code_version": code_version(),
        "libraries": library_versions(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ray_job_id": ray.get_runtime_context().get_job_id(),
    }
