"""Nightprice: from raw rows to a promoted model, and predictions over HTTP.

    from nightprice import load_settings, process, train

    settings = load_settings()
    process("raw", "dataset", settings)
    trained = train("dataset", registry=settings.registry, settings=settings)

Functions that need Ray join the cluster of `RAY_ADDRESS`, or start Ray on this machine, unless it runs already. Each
name is imported when it is first used, so that `import nightprice` needs neither Ray nor any extra.

A problem of your own is a `Contract`; a store of your own a `Store` (everything else that it needs: `pipeline.io`).
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from nightprice.errors import ContractError, NightpriceError, UsageError

if TYPE_CHECKING:
    from pipeline.datasets import open_dataset
    from pipeline.errors import GateRefused
    from pipeline.evaluation.evaluate import evaluate_dataset as evaluate
    from pipeline.io.stores import Store, StoreError, register
    from pipeline.predict import predict
    from pipeline.process import process
    from pipeline.settings import Settings, load_settings
    from pipeline.train.train import train
    from registry.registry import Registry
    from transforms.contract import Bands, Classes, Contract, Field, ListColumn, composite_key, load_contract

    __version__: str

__all__ = [
    "Bands",
    "Classes",
    "Contract",
    "ContractError",
    "Field",
    "GateRefused",
    "ListColumn",
    "NightpriceError",
    "Registry",
    "Settings",
    "Store",
    "StoreError",
    "UsageError",
    "__version__",
    "composite_key",
    "evaluate",
    "load_contract",
    "load_settings",
    "open_dataset",
    "predict",
    "process",
    "register",
    "train",
]

_LOCATIONS = {
    "Bands": "transforms.contract:Bands",
    "Classes": "transforms.contract:Classes",
    "Contract": "transforms.contract:Contract",
    "Field": "transforms.contract:Field",
    "GateRefused": "pipeline.errors:GateRefused",
    "ListColumn": "transforms.contract:ListColumn",
    "Registry": "registry.registry:Registry",
    "Settings": "pipeline.settings:Settings",
    "Store": "pipeline.io.stores:Store",
    "StoreError": "pipeline.io.stores:StoreError",
    "composite_key": "transforms.contract:composite_key",
    "evaluate": "pipeline.evaluation.evaluate:evaluate_dataset",
    "load_contract": "transforms.contract:load_contract",
    "load_settings": "pipeline.settings:load_settings",
    "open_dataset": "pipeline.datasets:open_dataset",
    "predict": "pipeline.predict:predict",
    "process": "pipeline.process:process",
    "register": "pipeline.io.stores:register",
    "train": "pipeline.train.train:train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _LOCATIONS:
        module, _, attribute = _LOCATIONS[name].partition(":")
        value = getattr(_import(module), attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _import(module: str) -> Any:
    if module.startswith("pipeline."):
        from nightprice.ray_environment import configure_pipeline

        # Ray reads it when it is imported, which most of these modules do.
        configure_pipeline()
    return importlib.import_module(module)


def _version() -> str:
    try:
        return version("nightprice")
    except PackageNotFoundError:
        return "0+source"  # run from its source folder
