"""Files of a new version: Parquet that no reader knows of until a commit names it."""

import json
import logging
import uuid
from collections.abc import Mapping
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from nightprice.errors import first_line
from pipeline.io.files.errors import writing
from pipeline.io.lake.table import MANIFEST, VERSION, DataFile, LakeTable
from pipeline.io.stores import StoreError
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, WriteStats, write_tagged
from pipeline.manifests import DatasetManifest
from pipeline.versions import new_version

logger = logging.getLogger(__name__)


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
        self.stats = write_tagged(rows, partial(_write_file, self._locations, self.version), key, _without_metadata)
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


def _without_metadata(columns: pa.Schema) -> pa.Schema:
    """The columns of the accepted rows: there may be no row, and thus no file, that has them."""
    return columns.remove_metadata()
