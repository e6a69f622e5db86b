"""Files as a store, local or in a bucket."""

from contextlib import AbstractContextManager

import pyarrow as pa
import ray.data

from nightprice.address import Address
from pipeline.io.files.locate import describe_files, find_files, warn_of_left_out
from pipeline.io.files.read import read_files
from pipeline.io.files.write import StagedVersion, open_version, write_version
from pipeline.io.stores import Columns, Published, Source, Store


class FileStore(Store):
    """CSV, Parquet and JSON lines to read; folders of versions in Parquet to write."""

    def read(self, address: Address, columns: Columns) -> Source:
        found = find_files(address)
        warn_of_left_out(address, found.left_out)
        rows, tasks = read_files(found.filesystem, found.files, columns)
        return Source(rows, describe_files(found.files), found.left_out, tasks)

    def write(
        self, address: Address, rows: ray.data.Dataset, rejected: pa.Schema, key: str
    ) -> AbstractContextManager[StagedVersion]:
        return write_version(address, rows, key)

    def open(self, address: Address) -> Published:
        return open_version(address)
