"""Tasks of Ray Data as all of ours run: on Arrow tables, and tried again a few times, not for ever."""

from collections.abc import Callable
from typing import Any

import ray.data
from ray.data import Datasink

# After a worker or its node died. Ray Data would try without end, so a block that kills whoever reads it would never be an error.
# What reads, maps and writes must agree on it: only then Ray makes one task of them.
RETRIES = 3


def map_tables(rows: ray.data.Dataset, function: Callable[..., Any], *, batch_size: int | None = None, **options: Any) -> ray.data.Dataset:
    """`Dataset.map_batches` on Arrow tables that are not copied; without `batch_size`, on whole blocks."""
    return rows.map_batches(function, batch_format="pyarrow", batch_size=batch_size, zero_copy_batch=True, max_retries=RETRIES, **options)


def write_parts(dataset: ray.data.Dataset, sink: Datasink[Any]) -> None:
    """Write a dataset of parted blocks."""
    dataset.write_datasink(sink, ray_remote_args={"max_retries": RETRIES})
