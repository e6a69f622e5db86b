"""Tagged blocks: accepted and rejected rows in one block, so that one pass over a source writes both.

A tagged table has the columns of its accepted rows and two more: `rejected`, a struct that holds a whole rejected row
(null in accepted rows), and `warnings`, the list of an accepted row's `field:problem`. It exists in memory only.
"""

import pickle
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data._internal.execution.interfaces import TaskContext

from pipeline import progress
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io.kmv_sketch import KmvSketch, task_size
from pipeline.row_sample import sampled
from transforms.clean import REASONS, REASONS_TYPE

ACCEPTED = "accepted"
REJECTED = "rejected"
WARNINGS = "warnings"
# Every task returns its sample to the driver: 50 KB. A share of 90 % is then known within 1.3 points.
SAMPLE_ROWS = 500


def tag(accepted: pa.Table, rejected: pa.Table, warnings: pa.Array) -> pa.Table:
    """One tagged table of accepted and rejected rows; `warnings` is aligned with `accepted`."""
    struct = pa.struct(list(rejected.schema))
    head = accepted.append_column(REJECTED, pa.nulls(len(accepted), struct)).append_column(WARNINGS, warnings)
    if not len(rejected):
        return head
    whole = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in rejected.columns], fields=list(rejected.schema)
    )
    tail = [pa.nulls(len(rejected), column.type) for column in accepted.schema]
    return pa.concat_tables([head, pa.table([*tail, whole, pa.nulls(len(rejected), REASONS_TYPE)], schema=head.schema)])


def untag(table: pa.Table) -> tuple[pa.Table, pa.Table, pa.ChunkedArray]:
    """A tagged table's accepted rows, its rejected rows, and the warnings of the accepted ones."""
    is_rejected = pc.is_valid(table[REJECTED])
    plain = table.drop_columns([REJECTED, WARNINGS])
    if not pc.any(is_rejected).as_py():
        return plain, pa.schema(list(table[REJECTED].type)).empty_table(), table[WARNINGS]
    keep = pc.invert(is_rejected)
    rejected = pa.Table.from_struct_array(table[REJECTED].filter(is_rejected))
    return plain.filter(keep), rejected, table[WARNINGS].filter(keep)


def accepted_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of the accepted rows of a tagged table."""
    return pa.schema([column for column in schema if column.name not in (REJECTED, WARNINGS)])


@dataclass
class WriteStats:
    """Counts of what was written; the stats of parts of the rows add up."""

    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    sole_reasons: Counter[str] = field(default_factory=Counter)
    """Of the rejected rows that have a single reason."""
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For each reason one of its rejected rows."""
    warnings: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    """How many accepted rows have a value in each column."""
    written: list[Any] = field(default_factory=list)
    """What `write_table` returned for each table that was written, such as the name of a file."""
    keys: KmvSketch = field(default_factory=KmvSketch)
    key: str = ""
    sample: pa.Table | None = None
    """SAMPLE_ROWS of the accepted rows, by their `key`; all of them if they are fewer."""

    @property
    def read(self) -> int:
        return self.accepted + self.rejected

    @property
    def repeated_keys(self) -> int:
        """How many accepted rows repeat the key of another one; an estimate for many rows."""
        return self.keys.repeats(self.accepted)

    def __add__(self, other: "WriteStats") -> "WriteStats":
        key = self.key or other.key
        samples = [part for part in (self.sample, other.sample) if part is not None]
        return WriteStats(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.reasons + other.reasons,
            self.sole_reasons + other.sole_reasons,
            other.examples | self.examples,
            self.warnings + other.warnings,
            self.filled + other.filled,
            self.written + other.written,
            self.keys + other.keys,
            key,
            sampled(pa.concat_tables(samples), key, SAMPLE_ROWS) if samples else None,
        )


def stats_of(accepted: pa.Table, rejected: pa.Table, warnings: pa.ChunkedArray, key: str) -> WriteStats:
    """The stats of one block; `key` names the column of 64-bit integers whose repeats are counted."""
    reasons = rejected[REASONS].to_pylist() if len(rejected) else []
    return WriteStats(
        len(accepted),
        len(rejected),
        Counter(reason for row in reasons for reason in row),
        Counter(row[0] for row in reasons if len(row) == 1),
        _examples(rejected, reasons),
        Counter(pc.list_flatten(warnings).to_pylist()),
        Counter({name: len(accepted) - accepted[name].null_count for name in accepted.column_names}),
        keys=KmvSketch.of(accepted[key].to_numpy()),
        key=key,
        sample=sampled(accepted, key, SAMPLE_ROWS),
    )


def _examples(rejected: pa.Table, reasons: list[list[str]]) -> dict[str, dict[str, Any]]:
    first: dict[str, int] = {}
    for position, row in enumerate(reasons):
        for reason in row:
            first.setdefault(reason, position)
    return {reason: rejected.slice(position, 1).to_pylist()[0] for reason, position in first.items()}


WriteTable = Callable[[str, pa.Table, str], Any]
"""`write_table(kind, table, task)` stores rows of one kind, "accepted" or "rejected".

`task` names the write task and the block; it is the same when Ray runs the task again, and the store must then replace
what the first attempt left. What is returned is kept in `WriteStats.written`."""

Begin = Callable[[pa.Schema], Any]
"""`begin(schema)` is called once in each task, before its first block, with the columns of the accepted rows."""


def write_tagged(rows: ray.data.Dataset, write_table: WriteTable, key: str, begin: Begin | None = None) -> WriteStats:
    """Write a dataset of tagged blocks: one call of `write_table` a block and kind that has rows, in Ray's tasks."""
    parts = map_tables(rows, partial(_write_block, write_table=write_table, key=key, begin=begin))
    parts.set_name(rows.name)
    stats = WriteStats()
    tasks: set[int] = set()
    # Closed after an error, Ray Data ends the tasks that still write, and what they leave can be removed.
    batches: Any = iter(parts.iter_batches(batch_size=None, batch_format="pyarrow"))
    with closing(batches):
        for task, stored in (row.values() for batch in batches for row in batch.to_pylist()):
            part: WriteStats = pickle.loads(stored)
            progress.advance(rows=part.read, tasks=int(task not in tasks))
            tasks.add(task)
            stats += part
    if begin and not tasks and (schema := rows.schema()):
        # Ray Data hands on blocks without rows, and calls no function for them.
        stats.written += _begun(begin, schema.base_schema)
    progress.begin("checking what was written")
    return stats


def _write_block(table: pa.Table, write_table: WriteTable, key: str, begin: Begin | None) -> pa.Table:
    task = TaskContext.get_current()
    assert task is not None, "outside of a task of Ray Data"
    number = task.kwargs["block"] = task.kwargs.get("block", -1) + 1
    began = _begun(begin, table.schema) if begin and not number else []
    accepted, rejected, warnings = untag(table)
    stats = stats_of(accepted, rejected, warnings, key)
    stats.keys = stats.keys.shrunk(task_size(task.task_idx))
    stats.written += began
    for kind, some in ((ACCEPTED, accepted), (REJECTED, rejected)):
        if len(some):
            stats.written.append(write_table(kind, some, f"{task.task_idx:06d}-{number:04d}"))
    return pa.table({"task": [task.task_idx], "stats": pa.array([pickle.dumps(stats)], pa.binary())})


def _begun(begin: Begin, schema: pa.Schema) -> list[Any]:
    result = begin(accepted_schema(schema))
    return [] if result is None else [result]
