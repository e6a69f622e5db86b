"""Defaults that more than one package needs."""

from pathlib import Path

import platformdirs

DEFAULT_CONTRACT = "transforms.listings:CONTRACT"
"""The contract that settings choose where none is set, as MODULE:NAME."""
DEFAULT_CONTRACT_NAME = "listing-price"
"""The name of that contract, and so of the models that are trained under it."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Names of contracts and models: each is a folder of the registry, and part of addresses."""
DEFAULT_REGISTRY = "./nightprice-registry"
"""Where models are kept if no registry is named."""
DEFAULT_CACHE_DIR = Path(platformdirs.user_cache_dir("nightprice"))
"""Downloads, and models fetched from a registry."""

DEFAULT_MISSING_VALUES = (
    *("NA", "N/A", "#N/A", "#NA", "<NA>", "NaN", "-NaN", "NaT"),
    *("NULL", "(null)", "<null>", "[null]", "\\N", "None", "nil", "undefined"),
)
"""What R, pandas, databases and spreadsheets write for nothing; case and surrounding blanks do not count."""
