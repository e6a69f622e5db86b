"""The history of an alias: numbered records, each written once, the highest number in force."""

import getpass
import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from nightprice.errors import first_line
from registry.errors import ConflictError, RegistryError
from registry.store import Store

PROMOTE = "promote"
ROLLBACK = "rollback"
_RECORD_FILE = re.compile(r"[0-9]{8}\.json")


@dataclass(frozen=True)
class AliasRecord:
    """One change of an alias."""

    number: int
    """From 1, without gaps."""
    version: str
    """The version that the alias names from now on."""
    previous: str | None
    """The version that the alias named before."""
    when: str
    """UTC, ISO 8601."""
    who: str
    why: str
    action: str = PROMOTE
    """"promote" or "rollback"."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_current(store: Store, folder: str) -> AliasRecord | None:
    """The record in force, or None if the alias was never set."""
    names = _record_files(store, folder)
    return _read_record(store, f"{folder}/{names[-1]}") if names else None


def read_history(store: Store, folder: str) -> list[AliasRecord]:
    """All records of an alias, newest first."""
    return [_read_record(store, f"{folder}/{name}") for name in reversed(_record_files(store, folder))]


def append(
    store: Store, folder: str, after: AliasRecord | None, *, version: str, action: str, why: str, who: str | None
) -> AliasRecord:
    """Write the record that follows `after`.

    Raises ConflictError if another process has done so since: its record stands and nothing is written.
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
    path = f"{folder}/{number:08d}.json"
    if not store.create(path, json.dumps(record.as_json(), ensure_ascii=False).encode()):
        raise conflict_error(store.where(folder), _read_record(store, path))
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


def _record_files(store: Store, folder: str) -> list[str]:
    return [name for name in store.files(folder) if _RECORD_FILE.fullmatch(name)]


def _read_record(store: Store, path: str) -> AliasRecord:
    content = store.read(path)
    try:
        return AliasRecord(**json.loads(content or b""))
    except (ValueError, TypeError) as error:
        raise RegistryError(
            f"{store.where(path)} is not an alias record ({first_line(error)}). Restore the file: the history is never "
            "edited."
        ) from error
