"""Processed datasets: the accepted rows of the version that a manifest names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import ray.data

from nightprice.address import Address, parse_address
from nightprice.errors import ContractError, first_line
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.session import on_ray
from pipeline.io import exactly, open_published, read
from pipeline.manifests import DatasetManifest
from transforms.contract import Contract, Label, label_from_json


@dataclass(frozen=True)
class Dataset:
    """The live version of a processed dataset."""

    address: Address
    contract: Contract
    manifest: DatasetManifest
    accepted: Address
    """Where the accepted rows lie."""
    rejected: Address
    """Where the rejected rows lie, with their raw values and reasons."""

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def label(self) -> Label:
        """How its rows were labelled. Raises ContractError if the manifest does not say."""
        try:
            return label_from_json(self.manifest["label"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ContractError(
                f'"{self.address}" does not say how its rows were labelled ({first_line(error)}). Process the source '
                "again."
            ) from error

    def rows(self, columns: Sequence[str]) -> ray.data.Dataset:
        """The accepted rows, with the named columns in the types of the contract."""
        rows = read(self.accepted, exactly(*columns)).rows
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
    address = parse_address(uri)
    published = open_published(address)
    if difference := contract.difference(published.manifest.get("contract")):
        raise ContractError(
            f'"{address}" was processed {difference}. Set NIGHTPRICE_CONTRACT to that one, if it was meant, '
            "or process the source again."
        )
    return Dataset(address, contract, published.manifest, published.accepted, published.rejected)
