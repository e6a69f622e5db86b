"""What stores of lake tables share: rows lie in Parquet files that no reader knows of until one commit names them.

A dataset is two tables, TABLE and TABLE_rejected. The rejected rows are committed first, under the name of the version;
then the commit of the accepted rows, which replaces all rows of TABLE, carries the manifest and makes both live.
docs/decisions/lake-tables.md says why, and what Ray's connectors do here.
"""

import json
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.block import Block, BlockAccessor

from nightprice.address import Address, parse_address
from nightprice.errors import first_line
from pipeline.cluster.arrow_tasks import map_tables, write_blocks
from pipeline.errors import GateRefused
from pipeline.io.files.errors import writing
from pipeline.io.files.read import task_bytes
from pipeline.io.stores import AddressError, Columns, Published, Source, Store, StoreError
from pipeline.io.table_rows import as_raw_rows
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, TaggedBlockSink, WriteStats, accepted_schema
from pipeline.manifests import DatasetManifest, parse_manifest
from pipeline.versions import new_version

logger = logging.getLogger(__name__)

# The properties of our commits.
VERSION = "nightprice.version"
MANIFEST = "nightprice.manifest"
# Another run may commit between the look at a table and our own commit.
COMMIT_ATTEMPTS = 5


class CommitConflict(StoreError):
    """Another commit was faster; the same commit may work on the table as it is now."""


@dataclass(frozen=True)
class Snapshot:
    """One state of a table, and the properties of the commit that made it."""

    id: int
    properties: Mapping[str, str]


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that a task wrote."""

    kind: str
    path: str
    """Below the folder of the table's data."""
    size: int
    rows: int


class LakeTable(ABC):
    """A table that may not exist yet. It travels to the tasks."""

    def __init__(self, address: Address) -> None:
        parameters = dict(parse_qsl(address.parts.query, keep_blank_values=True))
        self.wanted = parameters.pop("version", None)
        """The version that the address names: one of ours by its name, any by its number."""
        if parameters or self.wanted == "" or address.parts.fragment or "@" in address.parts.netloc:
            raise AddressError(
                f'"{address}": the address of a lake table may end with ?version=… and has no other parameters and no '
                "credentials, which come from the environment."
            )
        self.address = parse_address(address.text.partition("?")[0].rstrip("/"))

    @abstractmethod
    def snapshots(self) -> Iterator[Snapshot]:
        """The states that can still be read, newest first; none if there is no table."""

    @abstractmethod
    def columns(self, snapshot: int) -> list[str]:
        """The columns of a state."""

    @abstractmethod
    def rows(self, snapshot: int, columns: Sequence[str]) -> ray.data.Dataset:
        """The rows of a state, by Ray's connector."""

    @abstractmethod
    def location(self) -> tuple[fs.FileSystem, str]:
        """The folder for data files."""

    @abstractmethod
    def try_commit(self, schema: pa.Schema, files: Sequence[DataFile], properties: dict[str, str]) -> None:
        """Replace all rows by those of files, in one step; CommitConflict if another commit was faster."""

    def commit(self, schema: pa.Schema, files: Sequence[DataFile], properties: dict[str, str]) -> None:
        """Replace all rows by those of files, in one step; of two commits at once the second replaces the first."""
        for attempt in range(1, COMMIT_ATTEMPTS + 1):
            try:
                return self.try_commit(schema, files, properties)
            except CommitConflict:
                # Ours may be the one that was faster: it arrived, and what comes after a commit failed.
                if any(snapshot.properties.get(VERSION) == properties[VERSION] for snapshot in self.snapshots()):
                    return None
                if attempt == COMMIT_ATTEMPTS:
                    raise

    def rejected(self) -> Self:
        """The table of the rejected rows."""
        return type(self)(parse_address(f"{self.address.text}_{REJECTED}"))

    def at(self, version: str | int) -> Address:
        """The address of one state."""
        return parse_address(f"{self.address.text}?version={version}")

    def snapshot(self) -> int:
        """The state that the address names, by default the newest; AddressError if there is none."""
        if self.wanted and self.wanted.isdecimal():
            return int(self.wanted)
        for snapshot in self.snapshots():
            if self.wanted in (None, snapshot.properties.get(VERSION)):
                return snapshot.id
        missing = f'it has no version "{self.wanted}"' if self.wanted else "there is no table that holds anything"
        raise AddressError(f'"{self.address}": {missing}. Check the address.')

    def check_ours(self) -> None:
        """Raise StoreError for a table that another program made: its rows would be replaced."""
        snapshots = list(self.snapshots())
        if snapshots and not any(VERSION in snapshot.properties for snapshot in snapshots):
            raise StoreError(
                f'"{self.address}" exists and was not written by nightprice. Write to another table, or drop that one.'
            )


def task_count(sizes: Sequence[int]) -> int:
    """In how many tasks files of so many bytes are read; by itself Ray would cut them into 200 blocks."""
    return max(1, min(len(sizes), sum(sizes) // task_bytes(sum(sizes))))


class StagedFiles:
    """Files of a version that no commit names yet."""

    def __init__(self, table: LakeTable, rejected: pa.Schema) -> None:
        self.version = new_version()
        self.stats = WriteStats()
        self._tables = {ACCEPTED: table, REJECTED: table.rejected()}
        self._schemas = {REJECTED: rejected}
        self._may_be_live: set[str] = set()
        for each in self._tables.values():
            each.check_ours()
        self._locations = {kind: each.location() for kind, each in self._tables.items()}

    @property
    def rejected_at(self) -> str:
        return self._tables[REJECTED].at(self.version).display

    def write(self, rows: ray.data.Dataset, key: str) -> None:
        """Write tagged blocks, and leave exactly the files that successful tasks wrote."""
        sink = _FileSink(partial(_write_file, self._locations, self.version), key)
        write_blocks(rows, sink)
        self.stats = sink.stats
        for item in self.stats.written:
            if isinstance(item, pa.Schema):
                self._schemas.setdefault(ACCEPTED, item)
        for kind in self._tables:
            self._reconcile(kind)

    def publish(self, manifest: DatasetManifest) -> None:
        """Commit the rejected rows, then the accepted ones with the manifest."""
        if ACCEPTED not in self._schemas:
            raise StoreError(f'"{self.rejected_at}": nothing to publish: the dataset has no rows and no columns.')
        self.commit(REJECTED)
        self.commit(ACCEPTED, {MANIFEST: json.dumps(manifest, ensure_ascii=False)})

    def commit(self, kind: str, properties: Mapping[str, str] | None = None) -> None:
        """Make the files of one kind the rows of its table."""
        # If the commit fails, it may have arrived nevertheless.
        self._may_be_live.add(kind)
        properties = {VERSION: self.version, **(properties or {})}
        self._tables[kind].commit(self._schemas[kind], self._files(kind), properties)

    def discard(self) -> None:
        """Remove what no commit names; a failure is only a warning."""
        for kind in set(self._tables) - self._may_be_live:
            filesystem, folder = self._locations[kind]
            try:
                if filesystem.get_file_info(f"{folder}/{self.version}").type == fs.FileType.Directory:
                    filesystem.delete_dir(f"{folder}/{self.version}")
            except OSError as error:
                logger.warning("What the failed run wrote could not be removed: %s.", first_line(error))

    def _files(self, kind: str) -> list[DataFile]:
        return [item for item in self.stats.written if isinstance(item, DataFile) and item.kind == kind]

    def _reconcile(self, kind: str) -> None:
        filesystem, folder = self._locations[kind]
        written = {f"{folder}/{file.path}": file.size for file in self._files(kind)}
        selector = fs.FileSelector(f"{folder}/{self.version}", allow_not_found=True)
        with writing(self._tables[kind].address.display):
            present = {item.path: item.size for item in filesystem.get_file_info(selector)}
            for path in present.keys() - written:
                filesystem.delete_file(path)
        if lost := [path for path, size in written.items() if present.get(path) != size]:
            raise StoreError(
                f"{len(lost)} of {len(written)} written files are gone or have changed, such as {min(lost)}. Run it "
                "again; nothing was published."
            )


def _write_file(
    locations: Mapping[str, tuple[fs.FileSystem, str]], version: str, kind: str, rows: pa.Table, task: str
) -> DataFile:
    filesystem, folder = locations[kind]
    # Every attempt of a task has a name of its own: one that was thought dead can't touch a file that is committed.
    path = f"{version}/{task}-{uuid.uuid4().hex}.parquet"
    with writing(folder):
        if isinstance(filesystem, fs.LocalFileSystem):
            filesystem.create_dir(f"{folder}/{version}")
        pq.write_table(rows, f"{folder}/{path}", filesystem=filesystem, compression="zstd", row_group_size=131_072)
        return DataFile(kind, path, filesystem.get_file_info(f"{folder}/{path}").size, len(rows))


class _FileSink(TaggedBlockSink):
    """Also returns the columns of the accepted rows: there may be no row, and thus no file, that has them."""

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> WriteStats:
        schemas: list[pa.Schema] = []
        stats = super().write(self._noting(blocks, schemas), ctx)
        stats.written += schemas
        return stats

    def _noting(self, blocks: Iterable[Block], schemas: list[pa.Schema]) -> Iterator[Block]:
        for block in blocks:
            if not schemas:
                schemas.append(accepted_schema(BlockAccessor.for_block(block).to_arrow().schema).remove_metadata())
            yield block


class LakeStore(Store):
    """A store of tables whose states have names, and can be read again."""

    @abstractmethod
    def table(self, address: Address) -> LakeTable:
        """The table of an address; AddressError says what is wrong with it."""

    def read(self, address: Address, columns: Columns) -> Source:
        """The chosen columns of one state of a table, which the manifest names. Lists arrive as JSON text."""
        table = self.table(address)
        snapshot = table.snapshot()
        where = table.at(snapshot).display
        rows = table.rows(snapshot, columns(table.columns(snapshot), where))
        return Source(map_tables(rows, partial(as_raw_rows, where=where)), [{"path": where}])

    @contextmanager
    def write(self, address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str) -> Iterator[StagedFiles]:
        table = self.table(address)
        if table.wanted:
            raise AddressError(f'"{address}" cannot be written to: it names a version. Leave out ?version=….')
        staged = StagedFiles(table, rejected)
        try:
            staged.write(rows, key)
            yield staged
        except GateRefused:
            staged.commit(REJECTED)
            raise
        finally:
            staged.discard()

    def open(self, address: Address) -> Published:
        """The dataset of the newest commit with a manifest, or that of the version that the address names."""
        table = self.table(address)
        for snapshot in table.snapshots():
            version = snapshot.properties.get(VERSION)
            if MANIFEST in snapshot.properties and table.wanted in (None, version, str(snapshot.id)):
                try:
                    manifest = parse_manifest(snapshot.properties[MANIFEST], address.display)
                except ValueError as error:
                    raise StoreError(
                        f'"{address}" holds no manifest: {first_line(error)}. Make the dataset anew with `nightprice '
                        "process`."
                    ) from error
                return Published(manifest, table.at(snapshot.id), table.rejected().at(manifest["version"]))
        wanted = f' of version "{table.wanted}"' if table.wanted else ""
        raise AddressError(f'"{address}" is not a processed dataset{wanted}. Make one with `nightprice process`.')
