"""What runs that write rows have in common: the checks before they publish, and the manifest."""

from datetime import UTC, datetime

import ray

from nightprice.address import Address
from pipeline.errors import GateRefused
from pipeline.io import Source, Staged, StoreError, WriteStats
from pipeline.manifests import DatasetManifest
from pipeline.provenance import code_version, library_versions
from pipeline.settings import Settings
from transforms.contract import Contract


def check_written(staged: Staged, source: Address, max_rejected: float) -> None:
    """Raise StoreError if no rows were read, GateRefused if none was accepted or more than `max_rejected` rejected."""
    stats = staged.stats
    if not stats.read:
        raise StoreError(f'"{source}" holds no rows: nothing was published. Check that it is the right address.')
    if not stats.accepted:
        raise GateRefused(
            f"No row was accepted: all {stats.rejected:,} were rejected: {_most_frequent(stats)}. They are kept at "
            f"{staged.rejected_at}; nothing was published, and what was live stays live. Correct the source."
        )
    share = stats.rejected / stats.read
    if share > max_rejected:
        raise GateRefused(
            f"{stats.rejected:,} of {stats.read:,} rows ({share:.1%}) were rejected, more than the {max_rejected:.1%} "
            f"allowed: {_most_frequent(stats)}. They are kept at {staged.rejected_at}; what was live stays live. "
            "Correct the source, or raise --max-rejected."
        )


def _most_frequent(stats: WriteStats) -> str:
    return ", ".join(f"{reason} ({count:,})" for reason, count in stats.reasons.most_common(3))


def describe_run(
    staged: Staged, source: Source, contract: Contract, settings: Settings, started: datetime
) -> DatasetManifest:
    """The manifest of a run: what was read, what became of it, and with what."""
    stats = staged.stats
    repeated = {f"{contract.key}:repeated": stats.repeated_keys} if stats.repeated_keys else {}
    manifest: DatasetManifest = {
        "version": staged.version,
        "rows": {"read": stats.read, "accepted": stats.accepted, "rejected": stats.rejected},
        "reasons": dict(stats.reasons.most_common()),
        "warnings": dict(stats.warnings) | repeated,
        "sources": source.description,
        "contract": contract.ref,
        "settings": settings.model_dump(mode="json"),
        "code_version": code_version(),
        "libraries": library_versions(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ray_job_id": ray.get_runtime_context().get_job_id(),
    }
    if source.left_out:
        manifest["left_out"] = list(source.left_out)
    return manifest
