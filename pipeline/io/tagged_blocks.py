"""Blocks that hold accepted and rejected rows at once, so that one pass over a source writes both.

A parted table has the columns of its accepted rows, and two more: `rejected`, a struct that holds a whole rejected
row (null in accepted rows), and `warnings`, the list of an accepted row's `field:problem`. It lives in memory only.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.block import Block, BlockAccessor
from ray.data.datasource import WriteResult

from pipeline.io.kmv_sketch import IdSketch, task_size
from transforms.clean import REASONS, REASONS_TYPE, REJECTED_SCHEMA

REJECTED = "rejected"
WARNINGS = "warnings"
ACCEPTED = "accepted"


def join(accepted: pa.Table, rejected: pa.Table, warnings: pa.Array) -> pa.Table:
    """One parted table of both parts; `warnings` is aligned with `accepted`."""
    struct = pa.struct(list(REJECTED_SCHEMA))
    head = accepted.append_column(REJECTED, pa.nulls(len(accepted), struct)).append_column(WARNINGS, warnings)
    if not len(rejected):
        return head
    whole = pa.StructArray.from_arrays(
        [rejected[name].combine_chunks() for name in REJECTED_SCHEMA.names], fields=list(REJECTED_SCHEMA)
    )
    tail = [pa.nulls(len(rejected), item.type) for item in accepted.schema]
    return pa.concat_tables([head, pa.table([*tail, whole, pa.nulls(len(rejected), REASONS_TYPE)], schema=head.schema)])


def split(table: pa.Table) -> tuple[pa.Table, pa.Table, pa.ChunkedArray]:
    """A parted table's accepted rows, its rejected rows, and the accepted rows' warnings."""
    is_rejected = pc.is_valid(table[REJECTED])
    plain = table.drop_columns([REJECTED, WARNINGS])
    if not pc.any(is_rejected).as_py():
        return plain, REJECTED_SCHEMA.empty_table(), table[WARNINGS]
    keep = pc.invert(is_rejected)
    rejected = pa.Table.from_struct_array(table[REJECTED].filter(is_rejected))
    return plain.filter(keep), rejected, table[WARNINGS].filter(keep)


@dataclass
class Tally:
    """Counts of what was written; tallies of parts of the rows add up."""

    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    written: list[Any] = field(default_factory=list)
    """What a store wants to know about each written piece, such as its file names."""
    id_sketch: IdSketch = field(default_factory=IdSketch)

    @property
    def read(self) -> int:
        return self.accepted + self.rejected

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.accepted + other.accepted,
            self.rejected + other.rejected,
            self.reasons + other.reasons,
            self.warnings + other.warnings,
            self.written + other.written,
            self.id_sketch + other.id_sketch,
        )


def tally_of(accepted: pa.Table, rejected: pa.Table, warnings: pa.ChunkedArray) -> Tally:
    """The tally of one block."""
    return Tally(
        len(accepted),
        len(rejected),
        Counter(pc.list_flatten(rejected[REASONS]).to_pylist()),
        Counter(pc.list_flatten(warnings).to_pylist()),
        id_sketch=IdSketch.of(accepted["id"].to_numpy()) if "id" in accepted.column_names else IdSketch(),
    )


class PartsSink(Datasink[Tally]):
    """Writes both parts of every block through `write_part`, one call a block and part that has rows.

    `write_part(part, table, task)` stores one table of the part "accepted" or "rejected". `task` names the write
    task and is the same when Ray runs the task again: a store must then replace what the first try left. What
    `write_part` returns is kept in `Tally.written`. After the write, `tally` holds the sum.
    """

    def __init__(self, write_part: Callable[[str, pa.Table, str], Any]) -> None:
        self._write_part = write_part
        self.tally = Tally()

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> Tally:
        total = Tally()
        for number, block in enumerate(blocks):
            table = BlockAccessor.for_block(block).to_arrow()
            if not len(table):
                continue
            accepted, rejected, warnings = split(table)
            piece = tally_of(accepted, rejected, warnings)
            for part, rows in ((ACCEPTED, accepted), (REJECTED, rejected)):
                if len(rows):
                    piece.written.append(self._write_part(part, rows, f"{ctx.task_idx:06d}-{number:04d}"))
            total += piece
        total.id_sketch = total.id_sketch.shrunk(task_size(ctx.task_idx))
        return total

    def on_write_complete(self, write_result: WriteResult[Tally]) -> None:
        self.tally = sum(write_result.write_returns, Tally())
