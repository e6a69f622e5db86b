"""Tasks of Ray Data as all of ours run: on Arrow tables, and tried again a few times, not for ever."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray.data

# After a worker or its node died. Ray Data would try without end, so a block that kills whoever reads it would never
# be an error.
# What reads, maps and writes must agree on it: only then Ray makes one task of them.
RETRIES = 3


@contextmanager
def retried() -> Iterator[None]:
    """Around a call that limits the retries: Ray warns that it will name such options otherwise, but has no other
    name for this one yet.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", DeprecationWarning)
        yield


def map_tables(
    rows: ray.data.Dataset, function: Callable[..., Any], *, batch_size: int | None = None, **options: Any
) -> ray.data.Dataset:
    """`Dataset.map_batches` on Arrow tables that are not copied; without `batch_size`, on whole blocks."""
    with retried():
        return rows.map_batches(
            function,
            batch_format="pyarrow",
            batch_size=batch_size,
            zero_copy_batch=True,
            max_retries=RETRIES,
            **options,
        )
