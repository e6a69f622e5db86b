"""What a table of a lake is: it has states that can be read again, and one commit replaces all of its rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

import pyarrow as pa
import ray.data
from pyarrow import fs

from nightprice.address import Address, parse_address
from pipeline.io.files.read import task_bytes
from pipeline.io.stores import AddressError, StoreError
from pipeline.io.tagged_blocks import REJECTED

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
        if parameters or self.wanted == "" or address.parts.fragment or address.parts.password:
            raise AddressError(
                f'"{address}": the address of a lake table may end with ?version=… and has no other parameters '
                "and no credentials, which come from the environment."
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
        another = False
        for snapshot in self.snapshots():
            if VERSION in snapshot.properties:
                return
            another = True
        if another:
            raise StoreError(
                f'"{self.address}" exists and was not written by nightprice. Write to another table, or drop that one.'
            )


def task_count(sizes: Sequence[int]) -> int:
    """In how many tasks files of so many bytes are read; by itself Ray would cut them into 200 blocks."""
    return max(1, min(len(sizes), sum(sizes) // task_bytes(sum(sizes))))
