"""Datasets in files: a folder a version, and a manifest beside them that names the live one."""

import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from nightprice.address import Address
from pipeline.errors import GateRefused
from pipeline.io.files.errors import reason_of, writing
from pipeline.io.files.locate import filesystem_of
from pipeline.io.stores import AddressError, Published, StoreError
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, WriteStats, write_tagged
from pipeline.manifests import MOST_BYTES, DatasetManifest, parse_manifest
from pipeline.versions import new_version, version_time

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# What a sink keeps: the live version and the ones before it, for a look back.
KEPT_VERSIONS = 3
# A version that began within this time is left alone, whatever became of it: another run may be writing it.
LONGEST_RUN = timedelta(days=1)


@contextmanager
def write_version(address: Address, rows: ray.data.Dataset, key: str) -> Iterator["StagedVersion"]:
    """Write `versions/VERSION/{accepted,rejected}/*.parquet`; `publish` makes it live.

    Until then, and if anything fails, the version that the old manifest names stays live. A refused version keeps its
    rejected rows; a failed one is removed.
    """
    filesystem, root = filesystem_of(address)
    staged = StagedVersion(filesystem, root, new_version())
    keep_rejected = False
    try:
        staged.write(rows, key)
        yield staged
    except GateRefused:
        keep_rejected = True
        raise
    finally:
        staged.discard_unpublished(keep_rejected)


class StagedVersion:
    """A folder of accepted and rejected rows that no manifest names yet."""

    def __init__(self, filesystem: fs.FileSystem, root: str, version: str) -> None:
        self._filesystem = filesystem
        self._root = root
        self._folder = f"{root}/versions/{version}"
        self._may_be_live = False
        self.version = version
        self.stats = WriteStats()

    @property
    def rejected_at(self) -> str:
        return f"{self._folder}/{REJECTED}"

    def write(self, rows: ray.data.Dataset, key: str) -> None:
        """Write tagged blocks, and leave exactly the files that successful tasks wrote."""
        with writing(self._folder):
            _make_folder(self._filesystem, self._folder)
        self.stats = write_tagged(rows, partial(_write_table, self._filesystem, self._folder), key)
        with writing(self._folder):
            _reconcile(self._filesystem, self._folder, set(self.stats.written))

    def publish(self, manifest: DatasetManifest) -> None:
        """Make this version the live one, then remove old versions."""
        # If writing the manifest fails, it may have arrived nevertheless.
        self._may_be_live = True
        with writing(self._root):
            _put_manifest(self._filesystem, f"{self._root}/{MANIFEST}", manifest)
        with _only_warned("Published, but old versions could not be removed"):
            _prune(self._filesystem, f"{self._root}/versions", self.version)

    def discard_unpublished(self, keep_rejected: bool) -> None:
        """Remove what was written, unless it was published."""
        if not self._may_be_live:
            with _only_warned("What the failed run wrote could not be removed"):
                _remove(self._filesystem, f"{self._folder}/{ACCEPTED}" if keep_rejected else self._folder)


def _make_folder(filesystem: fs.FileSystem, folder: str) -> None:
    """Make a local folder. A bucket has none, and to make one Arrow asks for the bucket itself, for which a role that
    is limited to a prefix has no right.
    """
    if isinstance(filesystem, fs.LocalFileSystem):
        filesystem.create_dir(folder)


@contextmanager
def _only_warned(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s.", what, reason_of(error))


def _write_table(filesystem: fs.FileSystem, folder: str, kind: str, table: pa.Table, task: str) -> str:
    path = f"{folder}/{kind}/{task}.parquet"
    with writing(folder):
        _make_folder(filesystem, f"{folder}/{kind}")
        pq.write_table(table, path, filesystem=filesystem, compression="zstd", row_group_size=131_072)
    return path


def _reconcile(filesystem: fs.FileSystem, folder: str, written: set[str]) -> None:
    """Remove the files that killed tasks left; StoreError if one is missing that a successful task wrote."""
    present = {
        item.path
        for item in filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
        if item.type == fs.FileType.File
    }
    if missing := written - present:
        raise StoreError(
            f"{len(missing)} of {len(written)} written files are gone, such as {min(missing)}. Run it again; "
            "nothing was published."
        )
    for path in present - written:
        filesystem.delete_file(path)


def _put_manifest(filesystem: fs.FileSystem, path: str, manifest: DatasetManifest) -> None:
    """Put the manifest in its place in one step: readers see the old one or the new one."""
    data = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _remove(filesystem: fs.FileSystem, folder: str) -> None:
    if filesystem.get_file_info(folder).type == fs.FileType.Directory:
        filesystem.delete_dir(folder)


def _prune(filesystem: fs.FileSystem, versions: str, live: str) -> None:
    """Remove all but the last versions; one that began within a day stays, since a run may still be writing it."""
    names = sorted(
        item.base_name
        for item in filesystem.get_file_info(fs.FileSelector(versions, allow_not_found=True))
        if item.type == fs.FileType.Directory
    )
    settled = version_time(datetime.now(UTC) - LONGEST_RUN)
    for name in [name for name in names if name <= live][:-KEPT_VERSIONS]:
        if name < settled:
            _remove(filesystem, f"{versions}/{name}")


def open_version(address: Address) -> Published:
    """The version that the manifest at an address names; StoreError if there is none."""
    manifest = _manifest_at(address)
    version = address.child(f"versions/{manifest['version']}")
    return Published(manifest, version.child(ACCEPTED), version.child(REJECTED))


def _manifest_at(address: Address) -> DatasetManifest:
    filesystem, root = filesystem_of(address)
    path = f"{root}/{MANIFEST}"
    try:
        with filesystem.open_input_stream(path) as stream:
            return parse_manifest(stream.read(MOST_BYTES + 1), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AddressError(
            f'"{address}" is not a processed dataset: there is no {MANIFEST}. Make one with `nightprice process`.'
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(
            f'"{path}" cannot be read: {reason_of(error)}. Make the dataset anew with `nightprice process`.'
        ) from error
