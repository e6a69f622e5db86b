"""How stores of tables write: into staging tables while tasks run, then, checked against what the tasks count, live
at once.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import ray.data
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.block import Block, BlockAccessor

from nightprice.errors import NightpriceError
from pipeline.cluster.arrow_tasks import write_parts
from pipeline.io.stores import Manifest, Seal, StoreError
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, WARNINGS, PartsSink, Tally
from transforms.clean import REJECTED_SCHEMA

logger = logging.getLogger(__name__)

MANIFEST = "manifest"


class TableAddress(Protocol):
    """The address of a table to write to."""

    @property
    def shown(self) -> str:
        """The address for messages, without a password."""

    def to_write(self) -> str:
        """The table to write; StoreError if the address names none."""

    def of_table(self, table: str) -> str:
        """The shown address of another table of the same database."""


class Staging(ABC):
    """The staging tables of one version of one table: TABLE_accepted_1a2b3c and TABLE_rejected_1a2b3c. It travels
    to the tasks.
    """

    def __init__(self, address: TableAddress, version: str) -> None:
        self._address = address
        self.version = version
        table = address.to_write()
        mark = version.rpartition("-")[2]
        self.live = {ACCEPTED: table, REJECTED: f"{table}_{REJECTED}", MANIFEST: f"{table}_{MANIFEST}"}
        self.staged = {part: f"{table}_{part}_{mark}" for part in (ACCEPTED, REJECTED)}

    @abstractmethod
    def tables(self) -> Collection[str]:
        """The names of the tables that are there."""

    @abstractmethod
    def create(self, part: str, schema: pa.Schema) -> None:
        """Make a part's staging table, unless another task did."""

    @abstractmethod
    def write(self, part: str, rows: pa.Table, task: str) -> str:
        """Store the rows of one task; returns the name that they are told from those of other tries by."""

    @abstractmethod
    def count(self, part: str, written: Sequence[str]) -> int:
        """How many rows a part's staging table holds under the names that `write` returned."""

    @abstractmethod
    def publish(self, manifest: Manifest, written: Sequence[str]) -> None:
        """Replace the live tables by what is staged under these names, and write the manifest: readers see all of
        it or nothing.
        """

    @abstractmethod
    def bare(self, part: str, written: Sequence[str]) -> None:
        """Leave in a part's staging table what is staged under these names, without the column that holds them."""

    @abstractmethod
    def drop(self, tables: Iterable[str]) -> None:
        """Drop those of the tables that are there."""

    def shown(self, part: str) -> str:
        """The address of a part's staging table."""
        return self._address.of_table(self.staged[part])

    def start(self) -> None:
        """Check that the live tables are ours to replace and that tables can be made.

        Raises StoreError for tables that another program made: they would be dropped.
        """
        there = self.tables()
        taken = [name for name in self.live.values() if name in there]
        if taken and self.live[MANIFEST] not in there:
            raise StoreError(
                f'"{self._address.shown}": the table "{taken[0]}" is there and was not written by nightprice '
                f'(there is no "{self.live[MANIFEST]}"). Write to another table, or drop that one.'
            )
        self.create(REJECTED, REJECTED_SCHEMA)

    def reconcile(self, tally: Tally) -> None:
        """Raise StoreError unless the staging tables hold exactly as many rows as the tasks wrote."""
        there = self.tables()
        for part, expected in ((ACCEPTED, tally.accepted), (REJECTED, tally.rejected)):
            found = self.count(part, tally.written) if self.staged[part] in there else 0
            if found != expected:
                raise StoreError(
                    f'"{self.shown(part)}" holds {found:,} rows, but {expected:,} were written. Nothing was '
                    "published: run it again."
                )

    def sealed(self, tally: Tally, seal: Seal) -> Manifest:
        """What `seal` returns; if it refuses, the rejected rows stay where they are, for a look."""
        try:
            return seal(tally, self.version, self.shown(REJECTED))
        except NightpriceError:
            if tally.rejected:
                self.bare(REJECTED, tally.written)
                del self.staged[REJECTED]
            raise

    def clean(self) -> None:
        """Drop what is still staged; that it can't be dropped is told, and no reason to fail."""
        try:
            self.drop(self.staged.values())
        except StoreError as error:
            logger.warning("The staging tables %s could not be dropped: %s", ", ".join(self.staged.values()), error)


def write_staged(dataset: ray.data.Dataset, staging: Staging, seal: Seal) -> Manifest:
    """Write both parts to staging tables, then make them TABLE, TABLE_rejected and TABLE_manifest.

    If anything fails before, what was live stays live; when `seal` refuses, the rejected rows stay in their staging
    table.
    """
    staging.start()
    parts = _StagingSink(staging)
    try:
        write_parts(dataset, parts)
        staging.reconcile(parts.tally)
        manifest = staging.sealed(parts.tally, seal)
        staging.publish(manifest, parts.tally.written)
    finally:
        staging.clean()
    return manifest


class _StagingSink(PartsSink):
    """Both parts into their staging tables; the table of the accepted rows is made for the columns of the first
    block.
    """

    def __init__(self, staging: Staging) -> None:
        super().__init__(staging.write)
        self._staging = staging

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> Tally:
        return super().write(self._with_table(blocks), ctx)

    def _with_table(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for number, block in enumerate(blocks):
            if number == 0:
                schema = BlockAccessor.for_block(block).to_arrow().schema
                names = [name for name in schema.names if name not in (REJECTED, WARNINGS)]
                self._staging.create(ACCEPTED, pa.schema([schema.field(name) for name in names]))
            yield block
