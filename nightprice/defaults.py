"""Defaults that more than one package needs."""

DEFAULT_CONTRACT = "transforms.listings:CONTRACT"
"""The contract that settings choose where none is set, as MODULE:NAME."""
DEFAULT_CONTRACT_NAME = "listing-price"
"""The name of that contract, and so of the models that are trained under it."""
DEFAULT_REGISTRY = "./nightprice-registry"
"""Where models are kept if no registry is named."""
