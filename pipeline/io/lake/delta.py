"""Delta Lake tables: read by Ray's connector, committed by the library `deltalake`.

delta:///absolute/path        delta+s3://bucket/path        delta+gs://…        delta+abfs://…
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import ray.data
from pyarrow import fs

from nightprice.address import Address
from nightprice.errors import first_line
from pipeline.cluster.arrow_tasks import RETRIES, retried
from pipeline.io.files.errors import LONGEST_REASON
from pipeline.io.files.locate import filesystem_of, folder_of
from pipeline.io.lake.store import LakeStore
from pipeline.io.lake.table import CommitConflict, DataFile, LakeTable, Snapshot, task_count
from pipeline.io.stores import AddressError, StoreError

if TYPE_CHECKING:
    import deltalake

COMMIT = re.compile(r"/\d{20}\.json$")
# A version is found by its commit in the log, of which Delta Lake removes what is older than 30 days by default.
CONFIGURATION = {"delta.logRetentionDuration": "interval 3650 days"}


class DeltaStore(LakeStore):
    """Tables of Delta Lake."""

    def table(self, address: Address) -> LakeTable:
        return DeltaTable(address)


class DeltaTable(LakeTable):
    """A folder with a log."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if bool(address.parts.netloc) == (address.scheme == "delta") or not address.parts.path.strip("/"):
            raise AddressError(
                f'"{address}" names no table. Write it like delta:///absolute/path or delta+s3://bucket/path.'
            )
        self._folder = folder_of(self.address)

    def snapshots(self) -> Iterator[Snapshot]:
        # Not `DeltaTable.history`: it reads all commits where mostly the newest is asked for, and stops every thread of
        # the process meanwhile.
        filesystem, folder = self.location()
        with self._errors():
            log = filesystem.get_file_info(fs.FileSelector(f"{folder}/_delta_log", allow_not_found=True))
            for path in sorted((item.path for item in log if COMMIT.search(item.path)), reverse=True):
                with filesystem.open_input_stream(path) as stream:
                    actions = stream.read().splitlines()
                infos = [json.loads(line)["commitInfo"] for line in actions if line.startswith(b'{"commitInfo"')]
                yield Snapshot(int(path[-25:-5]), infos[0] if infos else {})

    def columns(self, snapshot: int) -> list[str]:
        with self._errors():
            return [field.name for field in self._open(snapshot).schema().fields]

    def rows(self, snapshot: int, columns: Sequence[str]) -> ray.data.Dataset:
        filesystem, folder = self.location()
        with self._errors(), retried():
            files = pa.table(self._open(snapshot).get_add_actions())
            rows: ray.data.Dataset = ray.data.read_delta(
                self._uri,
                snapshot,
                # Arrow's own; by default it is that of `deltalake`, which calls Python for each request.
                filesystem=fs.SubTreeFileSystem(folder, filesystem),
                columns=list(columns),
                override_num_blocks=task_count(files["size_bytes"].to_pylist()),
                ray_remote_args={"max_retries": RETRIES},
            )
        return rows

    def location(self) -> tuple[fs.FileSystem, str]:
        filesystem, folder = filesystem_of(self._folder)
        return filesystem, folder.rstrip("/")

    def try_commit(self, schema: pa.Schema, files: Sequence[DataFile], properties: dict[str, str]) -> None:
        import deltalake
        from deltalake.exceptions import TableNotFoundError
        from deltalake.transaction import AddAction, create_table_with_add_actions

        now = int(time.time() * 1000)
        add = [AddAction(file.path, file.size, {}, now, True, json.dumps({"numRecords": file.rows})) for file in files]
        commit = deltalake.CommitProperties(custom_metadata=properties)
        columns = deltalake.Schema.from_arrow(schema)
        with self._errors():
            try:
                self._open().create_write_transaction([*add], "overwrite", columns, commit_properties=commit)
            except TableNotFoundError:
                create_table_with_add_actions(
                    self._uri, columns, add, configuration=CONFIGURATION, commit_properties=commit
                )

    @property
    def _uri(self) -> str:
        """As `deltalake` takes it: a path, or an address of a bucket."""
        return str(self._folder.local or self._folder.text)

    def _open(self, version: int | None = None) -> "deltalake.DeltaTable":
        import deltalake

        return deltalake.DeltaTable(self._uri, version)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what `deltalake` raises into StoreError, one sentence that says what to do."""
        try:
            from deltalake.exceptions import DeltaError, TableNotFoundError
        except ImportError as error:
            raise StoreError(
                f'"{self.address}" needs the extra "delta". Install it: pip install "nightprice[delta]".'
            ) from error
        try:
            yield
        except TableNotFoundError as error:
            raise AddressError(f'"{self.address}": there is no table. Check the address.') from error
        except DeltaError as error:
            raise CommitConflict(f'"{self.address}": {_reason(error)}. Check the version, and run it again.') from error
        except OSError as error:
            raise StoreError(f'"{self.address}": {_reason(error)}. Check the address and your rights to it.') from error


def _reason(error: Exception) -> str:
    """What `deltalake` says, without colours, in one line: it has a line for each cause."""
    return first_line(" ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())[:LONGEST_REASON])
