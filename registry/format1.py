"""Models of format 1, from before contracts had names: they still score, but do not explain.

Their manifests name no contract, and their trees are in XGBoost's own file, which is not read any more.
"""

from collections.abc import Mapping
from typing import Any

from nightprice.defaults import DEFAULT_CONTRACT_NAME
from registry.manifest import ModelManifest

FORMAT = 1
BOOSTER = "booster.ubj"

_REPLACED = ("contract_version", "pricing", "labels")


def translate(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of format 1 with the entries of format 2; `format` and `sha256` stay.

    Raises KeyError or TypeError for a manifest that is not one of format 1.

    >>> old = {"format": 1, "contract_version": 1, "labels": ["A", "B"],
    ...        "pricing": {"bins": [5.0], "labels": ["A", "B"], "minimum": 1.0}}
    >>> translate(old)["label"]
    {'kind': 'bands', 'bins': [5.0], 'labels': ['A', 'B'], 'minimum': 1.0}
    """
    kept = {key: value for key, value in manifest.items() if key not in _REPLACED}
    # There was only one contract, and no digest of it.
    contract = {"name": DEFAULT_CONTRACT_NAME, "version": manifest["contract_version"], "digest": ""}
    return {**kept, "contract": contract, "label": {"kind": "bands", **manifest["pricing"]}}


def has_unread_trees(manifest: ModelManifest) -> bool:
    """Whether a model could be explained if its trees were read."""
    return manifest["format"] == FORMAT and BOOSTER in manifest["sha256"]
