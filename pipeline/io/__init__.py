"""Sources and sinks: where rows come from and where results go.

Everything that a store of your own needs is here; docs/stores.md has an example.
"""

from nightprice.address import Address, parse_address
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.errors import GateRefused
from pipeline.io.stores import (
    Columns,
    Published,
    Source,
    Staged,
    Store,
    StoreError,
    exactly,
    open_published,
    read,
    register,
    write,
)
from pipeline.io.table_rows import as_raw_rows, with_source_file
from pipeline.io.tagged_blocks import ACCEPTED, REJECTED, WriteStats, tag, untag, write_tagged
from pipeline.manifests import DatasetManifest, SourceDescription, parse_manifest
from pipeline.versions import new_version

__all__ = [
    "ACCEPTED",
    "REJECTED",
    "Address",
    "Columns",
    "DatasetManifest",
    "GateRefused",
    "Published",
    "Source",
    "SourceDescription",
    "Staged",
    "Store",
    "StoreError",
    "WriteStats",
    "as_raw_rows",
    "exactly",
    "map_tables",
    "new_version",
    "open_published",
    "parse_address",
    "parse_manifest",
    "read",
    "register",
    "tag",
    "untag",
    "with_source_file",
    "write",
    "write_tagged",
]
