"""The estimators, by name: a new one is one entry here, and a section of the settings."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightprice.errors import UsageError, closest

if TYPE_CHECKING:
    from pipeline.train.estimator import Estimator


@dataclass(frozen=True)
class Entry:
    """Where an estimator is, and what it is called."""

    location: str
    """MODULE:CLASS. It is imported when it is used: each brings a library that takes a second to import."""
    title: str = ""
    """What reports call its models; empty: their reference."""


BASELINE = "random_forest"
DEFAULT = "xgboost"
ESTIMATORS = {
    DEFAULT: Entry("pipeline.train.boosting:XGBoost"),
    BASELINE: Entry("pipeline.train.forest:RandomForest", "the baseline"),
}


def find_estimator(name: str) -> "Estimator":
    """The estimator of a name in ESTIMATORS. Raises UsageError, with the closest match, for another."""
    if name not in ESTIMATORS:
        known = ", ".join(ESTIMATORS)
        raise UsageError(f'There is no estimator "{name}".{closest(name, ESTIMATORS)} Known: {known}.')
    module, _, kind = ESTIMATORS[name].location.partition(":")
    estimator: Estimator = getattr(importlib.import_module(module), kind)()
    return estimator


def title_of(name: str) -> str:
    """What reports call the models of an estimator; empty for one without a title, or of another version."""
    return ESTIMATORS[name].title if name in ESTIMATORS else ""
