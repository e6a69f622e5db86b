"""Processed datasets: the accepted rows of the version that a manifest names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import ray.data

from pipeline.io import base, exactly, files
from pipeline.io.base import Manifest, StoreError
from transforms.clean import SOURCE_FILE
from transforms.contract import CONTRACT_VERSION, Pricing
from transforms.errors import ContractError


@dataclass(frozen=True)
class Dataset:
    """The live version of a processed dataset."""

    uri: str
    manifest: Manifest
    accepted: str
    """The address of the accepted rows."""

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def pricing(self) -> Pricing:
        return Pricing.from_json(self.manifest["pricing"])

    def rows(self, columns: Sequence[str]) -> ray.data.Dataset:
        """The accepted rows, with the named columns in the types of `transforms.contract.accepted_schema`."""
        return base.read(self.accepted, exactly(*columns)).select_columns(list(columns))


def open_dataset(uri: str) -> Dataset:
    """Open what `process` wrote at an address.

    Raises StoreError when there is no dataset, ContractError when it was written under another contract.
    """
    manifest = files.read_manifest(uri) if base.scheme_of(uri) in files.SCHEMES else _manifest_row(uri)
    found = manifest.get("contract_version")
    if found != CONTRACT_VERSION:
        raise ContractError(f'"{uri}" was processed under contract {found}; this is contract {CONTRACT_VERSION}. Process the source again.')
    accepted = f"{uri.rstrip('/')}/versions/{manifest['version']}/accepted" if base.scheme_of(uri) in files.SCHEMES else uri
    return Dataset(uri, manifest, accepted)


def _manifest_row(uri: str) -> Manifest:
    """The manifest of a dataset in tables: the one row of the table `…_manifest`."""
    rows = base.read(f"{uri}_manifest", exactly("manifest")).take(1)
    if not rows:
        raise StoreError(f'"{uri}" is no processed dataset: its table of the manifest is empty. Make one with `nightprice process`.')
    manifest: Manifest = json.loads(rows[0]["manifest"])
    return manifest
