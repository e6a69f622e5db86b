"""Processed datasets: the accepted rows of the version that a manifest names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import ray.data

from nightprice.address import without_password
from nightprice.errors import ContractError
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.session import on_ray
from pipeline.io import exactly, files
from pipeline.io import stores as base
from pipeline.io.sql.address import sibling
from pipeline.io.stores import Manifest, StoreError
from transforms.contract import Contract, Label, label_from_json


@dataclass(frozen=True)
class Dataset:
    """The live version of a processed dataset."""

    uri: str
    contract: Contract
    manifest: Manifest
    accepted: str
    """The address of the accepted rows."""

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def label(self) -> Label:
        """How its rows were labelled."""
        return label_from_json(self.manifest["label"])

    def rows(self, columns: Sequence[str]) -> ray.data.Dataset:
        """The accepted rows, with the named columns in the types of the contract."""
        rows = base.read(self.accepted, exactly(*columns))
        # Not every store has every type: SQLite gives truth values as integers.
        schema = pa.schema([self.contract.accepted_schema().field(name) for name in columns])
        return map_tables(rows, partial(typed, schema=schema))


def typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema in its types."""
    return table.select(schema.names).cast(schema)


@on_ray
def open_dataset(uri: str, contract: Contract) -> Dataset:
    """Open what `process` wrote at an address under a contract.

    Raises StoreError when there is no dataset, ContractError when it was written under another contract.
    """
    manifest = files.read_manifest(uri) if base.scheme_of(uri) in files.SCHEMES else _manifest_row(uri)
    if difference := contract.difference(manifest.get("contract")):
        raise ContractError(f'"{without_password(uri)}" was processed {difference}. Process the source again.')
    accepted = (
        files.below(uri, f"versions/{manifest['version']}/accepted") if base.scheme_of(uri) in files.SCHEMES else uri
    )
    return Dataset(uri, contract, manifest, accepted)


def _manifest_row(uri: str) -> Manifest:
    """The manifest of a dataset in tables: the one row of the table `…_manifest`."""
    table = base.read(sibling(uri, "_manifest"), exactly("manifest"))
    table.set_name("manifest")
    rows = table.take(1)
    if not rows:
        raise StoreError(
            f'"{without_password(uri)}" is no processed dataset: its table of the manifest is empty. Make one '
            "with `nightprice process`."
        )
    manifest: Manifest = json.loads(rows[0]["manifest"])
    return manifest
