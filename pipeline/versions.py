"""Names of versions, of datasets and of models."""

import uuid
from datetime import UTC, datetime


def new_version(moment: datetime | None = None) -> str:
    """A name for a version that begins at a moment (default: now); names sort by time."""
    return f"{version_time(moment or datetime.now(UTC))}-{uuid.uuid4().hex[:6]}"


def version_time(moment: datetime) -> str:
    """The beginning of the name of a version that began at a moment.

    >>> version_time(datetime(2026, 11, 23, 13, 45, tzinfo=UTC))
    '20261123T134500Z'
    """
    return f"{moment:%Y%m%dT%H%M%SZ}"
