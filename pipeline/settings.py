"""Every setting, typed and documented: from a TOML file and from `NIGHTPRICE_…` variables, which win over the file.

The file is `--settings FILE`, else `$NIGHTPRICE_SETTINGS`, else `./nightprice.toml` if there is one:

    max_rejected = 0.1
    [xgboost]
    max_depth = 8

The same as variables: `NIGHTPRICE_MAX_REJECTED=0.1`, `NIGHTPRICE_XGBOOST__MAX_DEPTH=8`.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from nightprice.defaults import DEFAULT_CACHE_DIR, DEFAULT_CONTRACT, DEFAULT_MISSING_VALUES, DEFAULT_REGISTRY
from nightprice.errors import ContractError, UsageError
from nightprice.settings import LayeredSettings, load, split_list

if TYPE_CHECKING:
    from transforms.contract import Contract, Label

DEFAULT_FILE = "nightprice.toml"
FILE_VARIABLE = "NIGHTPRICE_SETTINGS"

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class XGBoostSettings(_Section):
    """Parameters of the default estimator, in XGBoost's own words; the defaults were chosen on training rows only."""

    rounds: Positive = Field(600, description="Maximum number of boosting rounds; early stopping usually ends before.")
    early_stopping_rounds: Positive = Field(
        40, description="Stop after so many rounds without a better log loss on the validation slice."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the training rows that early stopping watches."
    )
    learning_rate: float = Field(0.1, gt=0, le=1, description="Shrinkage of every round (eta).")
    max_depth: Annotated[int, Field(ge=1, le=20)] = Field(9, description="Depth of a tree.")
    min_child_weight: float = Field(1.0, ge=0, description="Minimum sum of hessians in a leaf.")
    subsample: float = Field(0.8, gt=0, le=1, description="Share of rows per round.")
    colsample_bytree: float = Field(0.7, gt=0, le=1, description="Share of features per tree.")
    reg_lambda: float = Field(5.0, ge=0, description="L2 penalty of leaf weights.")
    reg_alpha: float = Field(0.5, ge=0, description="L1 penalty of leaf weights.")
    class_balance: Share = Field(
        0.2, description="How far rare labels are weighted up: 0 not at all, 1 to the weight of frequent ones."
    )
    max_bin: Annotated[int, Field(ge=16, le=1024)] = Field(
        256, description="Histogram bins per feature; memory and precision of a split."
    )


class ForestSettings(_Section):
    """Parameters of the notebook's random forest; the defaults are the notebook's."""

    trees: Positive = Field(500, description="Number of trees, divided among the workers.")
    max_depth: Positive | None = Field(None, description="Depth of a tree; none grows until leaves are pure.")
    min_samples_leaf: Positive = Field(1, description="Minimum rows in a leaf.")
    class_weight: Literal["balanced", "none"] = Field(
        "balanced", description='"balanced" weights rare labels up, "none" does not.'
    )


def _check_metric(key: str) -> str:
    from pipeline.evaluation.metrics import METRICS

    deciding = [metric.key for metric in METRICS if metric.decides]
    if key not in deciding:
        raise ValueError(f"input should be one of {', '.join(deciding)}")
    return key


class GateSettings(_Section):
    """When `promote --if-better` calls a challenger better than the champion, on the same holdout rows."""

    metric: Annotated[str, AfterValidator(_check_metric)] = Field("log_loss", description="The metric that decides.")
    min_improvement: float = Field(
        0.0, ge=0, description="How much better the challenger must be, in the metric's own unit."
    )


class Settings(LayeredSettings):
    """What can be set, checked as a whole; `origins()` tells where each value came from."""

    model_config = SettingsConfigDict(env_prefix="NIGHTPRICE_")
    # The file itself, what tests and deployments hand over, and the options of the service.
    other_variables: ClassVar[tuple[str, ...]] = (FILE_VARIABLE, "NIGHTPRICE_TEST_", "NIGHTPRICE_SERVE_")
    where_documented: ClassVar[str] = "`nightprice doctor` lists the settings, docs/settings.md explains them."

    contract: str = Field(
        DEFAULT_CONTRACT, description="The problem: MODULE:NAME of a `Contract` (docs/bring-your-own-notebook.md)."
    )
    bins: Annotated[tuple[float, ...] | None, NoDecode, BeforeValidator(split_list)] = Field(
        None, description="Upper bounds, inclusive, of every label but the last. None: the contract's."
    )
    labels: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(split_list)] = Field(
        None, description="Names of the labels, one more than bins. None: the contract's."
    )
    minimum: float | None = Field(
        None, description="A record with a lower target is rejected. None: the contract's minimum."
    )
    max_rejected: Share = Field(
        0.2, description="`process` fails if a larger share of the rows is rejected, those without a target aside."
    )
    missing_values: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = Field(
        DEFAULT_MISSING_VALUES,
        description="Raw texts that mean nothing, case aside. If a place is really called None, list the others only.",
    )
    holdout_share: float = Field(
        0.15, gt=0, lt=1, description="Share of records, by a stable hash of the key, that training never sees."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Seed of everything random in training.")
    model_name: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Name of the model in the registry. None: the contract's name.",
    )
    registry: str = Field(
        DEFAULT_REGISTRY, min_length=1, description="Registry of models: a folder, s3://, gs:// or abfs://."
    )
    cache_dir: Path = Field(DEFAULT_CACHE_DIR, description="Downloads, and models fetched from a registry.")
    training_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs of each training worker. None: one, or less where that would leave none to read the data.",
    )
    resource_wait_seconds: float = Field(
        600.0,
        gt=0,
        description="How long a command waits for a cluster's CPUs, while nodes may still come, and training for a "
        "worker's heartbeat.",
    )
    xgboost: XGBoostSettings = Field(XGBoostSettings(), description="The default estimator.")
    random_forest: ForestSettings = Field(ForestSettings(), description="The notebook's estimator.")
    gate: GateSettings = Field(GateSettings(), description="The rule of `promote --if-better`.")

    def load_contract(self) -> "Contract":
        """The contract in force. Raises UsageError if there is no such object, ContractError if it is wrong."""
        from transforms.contract import load_contract

        return load_contract(self.contract)

    def label(self, contract: "Contract") -> "Label":
        """The contract's label with the bins, labels and minimum that are set. Raises UsageError if they don't fit."""
        try:
            return contract.label.override(bins=self.bins, labels=self.labels, minimum=self.minimum)
        except (ContractError, UsageError) as error:
            origins = dict.fromkeys(self._origins.get(name) for name in ("bins", "labels", "minimum"))
            raise UsageError(f"{', '.join(filter(None, origins)) or 'settings'}: {error}") from error

    def model(self) -> str:
        """The name of the model in the registry."""
        return self.model_name or self.load_contract().name

    def as_json(self) -> dict[str, Any]:
        """For manifests: what was in force, in JSON's types."""
        return self.model_dump(mode="json")

    def override(self, **values: Any) -> "Settings":
        """The same settings with those of the command line; None leaves a setting as it is."""
        changes = {name: value for name, value in values.items() if value is not None}
        copy = self.model_copy(update=changes)
        copy._origins = {**self._origins, **dict.fromkeys(changes, "command line")}
        return copy


def load_settings(file: Path | None = None) -> Settings:
    """The settings in force: variables, then the file, then defaults.

    Raises UsageError for a file that does not exist or is not TOML, a setting that does not exist (with the closest
    match) or a value that is not allowed.
    """
    return load(Settings, _existing_file(file))


def _existing_file(file: Path | None) -> Path | None:
    """The file to read; one that is named must exist."""
    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is None:
        return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None
    if not named.is_file():
        by = "--settings" if file else FILE_VARIABLE
        raise UsageError(
            f"{by} names {named}, but there is no such file. Write it, or leave {by} out to use the defaults."
        )
    return named
