"""The history of an alias: numbered records, each written once, the highest number in force."""

import getpass
import itertools
import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from registry.errors import ArtifactError, ConflictError, RegistryError
from registry.manifest import Count, Time, Version, first_problem
from registry.store import Store

PROMOTE: Literal["promote"] = "promote"
ROLLBACK: Literal["rollback"] = "rollback"
Action = Literal["promote", "rollback"]
# The names sort as the numbers do.
_DIGITS = 8
_RECORD_FILE = re.compile(rf"[0-9]{{{_DIGITS}}}\.json")
# Its longest part is the reason, which somebody types.
MOST_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class AliasRecord:
    """One change of an alias."""

    number: Count
    """From 1, without gaps."""
    version: Version
    """The version that the alias names from now on."""
    previous: Version | None
    """The version that the alias named before."""
    when: Time
    """UTC, ISO 8601."""
    who: str
    why: str
    action: Action = PROMOTE

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


_SCHEMA = TypeAdapter(AliasRecord)


def read_current(store: Store, folder: str) -> AliasRecord | None:
    """The record in force, or None if the alias was never set. Raises RegistryError if it can't be told."""
    numbers = _record_numbers(store, folder)
    return _read_record(store, folder, numbers[-1]) if numbers else None


def read_history(store: Store, folder: str) -> list[AliasRecord]:
    """All records of an alias, newest first. Raises RegistryError if one of them can't be read."""
    return [_read_record(store, folder, number) for number in reversed(_record_numbers(store, folder))]


def append(
    store: Store, folder: str, after: AliasRecord | None, *, version: str, action: Action, why: str, who: str | None
) -> AliasRecord:
    """Write the record that follows `after`.

    Raises ConflictError if another process has done so since: its record stands and nothing is written. Raises
    RegistryError if there can't be another record.
    """
    number, previous = (after.number + 1, after.version) if after else (1, None)
    record = AliasRecord(
        number,
        version,
        previous,
        datetime.now(UTC).isoformat(timespec="microseconds"),
        who or user_at_host(),
        why,
        action,
    )
    path = _path(folder, number)
    if not _RECORD_FILE.fullmatch(path.rpartition("/")[2]):
        raise RegistryError(
            f"{store.where(folder)} has the record {number - 1:,}, the last one that can be named. It was not written "
            "by nightprice: remove its file."
        )
    if not store.create(path, json.dumps(record.as_json(), ensure_ascii=False).encode()):
        raise conflict_error(store.where(folder), _read_record(store, folder, number))
    return record


def conflict_error(where: str, theirs: AliasRecord) -> ConflictError:
    """The error for an alias that changed since it was read."""
    return ConflictError(
        f"{where} was set to {theirs.version} by {theirs.who} in the meantime ({theirs.why or 'no reason given'}). "
        "Nothing was changed: check its history, then try again if you still want to."
    )


def rollback_target(history: Sequence[AliasRecord]) -> str | None:
    """The version that a rollback leads to, or None if there is none; `history` newest first.

    A rollback undoes the last promotion that is not undone yet, so two rollbacks lead two versions back and never
    return to a version that was rolled back from: only a promotion does.

    >>> def record(number, version, action=PROMOTE): return AliasRecord(number, version, None, "", "", "", action)
    >>> promoted = [record(3, "C"), record(2, "B"), record(1, "A")]
    >>> rollback_target(promoted), rollback_target([record(4, "B", ROLLBACK), *promoted])
    ('B', 'A')
    """
    in_force: list[str] = []
    for record in reversed(history):
        if record.action == PROMOTE:
            in_force.append(record.version)
        else:
            del in_force[-1:]
    return in_force[-2] if len(in_force) > 1 else None


def user_at_host() -> str:
    """Who changes an alias, as USER@HOST.

    >>> "@" in user_at_host()
    True
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = f"user-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:0{_DIGITS}d}.json"


def _record_numbers(store: Store, folder: str) -> list[int]:
    numbers = [int(name.removesuffix(".json")) for name in store.files(folder) if _RECORD_FILE.fullmatch(name)]
    # The first ones may have been tidied away; a later one that is missing would decide which version is in force.
    if numbers and numbers[-1] - numbers[0] >= len(numbers):
        missing = next(number for number in itertools.count(numbers[0]) if number not in numbers)
        raise RegistryError(
            f"{store.where(folder)} has the record {numbers[-1]:,}, but not {missing:,}. Restore the missing file, or "
            "remove those after it if nightprice has not written them."
        )
    return numbers


def _read_record(store: Store, folder: str, number: int) -> AliasRecord:
    path = _path(folder, number)
    try:
        record = _SCHEMA.validate_json(store.read(path, MOST_RECORD_BYTES) or b"", strict=True)
        if record.number != number:
            raise ValueError(f"it has the number {record.number:,}")
    except (ValueError, ArtifactError) as error:
        raise RegistryError(
            f"{store.where(path)} is not an alias record ({first_problem(error)}). Restore the file: the history is "
            "never edited."
        ) from error
    return record
