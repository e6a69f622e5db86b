"""What runs that write rows have in common: the checks before they publish, and the manifest."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ray

from nightprice.address import Address
from nightprice.errors import first_line
from pipeline.errors import GateRefused
from pipeline.io import Source, Staged, StoreError, WriteStats
from pipeline.manifests import DatasetManifest
from pipeline.provenance import code_version, library_versions
from pipeline.settings import Settings
from transforms.clean import INVALID_ROW, NOT_UTF8_REASON, SOURCE_FILE
from transforms.contract import MISSING, OTHER_COLUMN, UNPARSEABLE, Contract

EXAMPLE_CHARACTERS = 60
# A manifest is read whole whenever a dataset is opened; a source may be a million files.
MOST_SOURCES = 1_000
_FIXES = {NOT_UTF8_REASON: "save the file as UTF-8, as in iconv -f ISO-8859-1 -t UTF-8 FILE > NEW_FILE"}


def check_written(staged: Staged, source: Address, contract: Contract, max_rejected: float) -> None:
    """Raise StoreError if no rows were read, GateRefused if none was accepted or more than `max_rejected` rejected.

    Rows that lack nothing but the target are not counted among the rejected: they can't train, but are usual where
    records are published without it, and no sign of a broken source.
    """
    stats = staged.stats
    if not stats.read:
        raise StoreError(f'"{source}" holds no rows: nothing was published. Check that it is the right address.')
    if not stats.accepted:
        raise GateRefused(
            f"No row was accepted: all {stats.rejected:,} were rejected: {_most_frequent(stats, contract)} They are "
            f"kept at {staged.rejected_at}; nothing was published, and what was live stays live. Correct the source, "
            "or the contract."
        )
    untargeted = without_target(stats, contract)
    rejected, read = stats.rejected - untargeted, stats.read - untargeted
    if rejected > max_rejected * read:
        uncounted = f", beside {untargeted:,} without {contract.target}," if untargeted else ""
        raise GateRefused(
            f"{rejected:,} of {read:,} rows ({rejected / read:.1%}){uncounted} were rejected, more than the "
            f"{max_rejected:.1%} allowed: {_most_frequent(stats, contract)} They are kept at {staged.rejected_at}; "
            "what was live stays live. Correct the source, or raise --max-rejected."
        )


def without_target(stats: WriteStats, contract: Contract) -> int:
    """How many rows were rejected for nothing but a missing target."""
    return stats.sole_reasons[f"{contract.target}:{MISSING}"]


def target_notes(stats: WriteStats, contract: Contract) -> list[str]:
    """A note if rows have no target."""
    rows = without_target(stats, contract)
    note = f"{rows:,} of {stats.read:,} rows have no {contract.target}: no model is trained on them."
    return [note] if rows else []


def _most_frequent(stats: WriteStats, contract: Contract) -> str:
    """The three most frequent reasons, and a row for each."""
    reasons = stats.reasons.most_common(3)
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in reasons)
    examples = [_example(reason, stats.examples[reason], contract) for reason, _ in reasons]
    return f"{counts}. For example {'; '.join(examples)}."


def _example(reason: str, row: Mapping[str, Any], contract: Contract) -> str:
    """A rejected row: its file, its key, and what is wrong in it."""
    name, _, problem = reason.partition(":")
    columns = {item.name: item.columns for item in contract.fields}
    key = " ".join(_cut(row[column]) for column in columns[contract.key] if row.get(column))
    where = f"{row[SOURCE_FILE]}{f', {contract.key} {key}' if key and name != contract.key else ''}"
    if name not in columns:
        advice = f" ({_FIXES[reason]})" if reason in _FIXES else ""
        return f"{where}: {_quoted(row.get(INVALID_ROW) or '')}{advice}"
    values = {column: row[column] for column in columns[name] if row.get(column)}
    if problem == UNPARSEABLE and len(values) == 1:
        return f"{where}: {_why_unparseable(contract, name, *values.values())}"
    shown = ", ".join(f"{column} = {_quoted(value)}" for column, value in values.items())
    return f"{where}: {shown or 'nothing in ' + ' or '.join(columns[name])}"


def _why_unparseable(contract: Contract, name: str, text: str) -> str:
    (item,) = [item for item in contract.fields if item.name == name]
    try:
        item.read(_cut(text))
    except ValueError as error:
        return first_line(error)
    return _quoted(text)


def _quoted(text: str) -> str:
    return f"'{_cut(text)}'"


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}…"


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
        "warnings": _warnings(stats) | repeated,
        "sources": source.description[:MOST_SOURCES],
        "source_count": len(source.description),
        "contract": contract.ref,
        "settings": settings.model_dump(mode="json"),
        "code_version": code_version(),
        "libraries": library_versions(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "ray_job_id": ray.get_runtime_context().get_job_id(),
    }
    if source.left_out:
        manifest["left_out"] = list(source.left_out[:MOST_SOURCES])
        manifest["left_out_count"] = len(source.left_out)
    return manifest


def _warnings(stats: WriteStats) -> dict[str, int]:
    """The warnings; where all values of a field are from the same other column, it is the one that this source has."""
    return {text: count for text, count in stats.warnings.items() if not _is_usual(text, count, stats)}


def _is_usual(warning: str, count: int, stats: WriteStats) -> bool:
    name, _, problem = warning.partition(":")
    return problem == OTHER_COLUMN and count >= stats.filled.get(name, stats.accepted)
