"""Every setting, typed and documented: from a TOML file and from `NIGHTPRICE_…` variables, which win over the file.

The file is `--settings FILE`, else `$NIGHTPRICE_SETTINGS`, else `./nightprice.toml` if there is one:

    max_rejected = 0.1
    [xgboost]
    max_depth = 8

The same as variables: `NIGHTPRICE_MAX_REJECTED=0.1`, `NIGHTPRICE_XGBOOST__MAX_DEPTH=8`.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict, SettingsError

from nightprice.errors import UsageError, closest
from nightprice.variables import unread_variable
from transforms.contract import Contract, Label, load_contract

DEFAULT_FILE = "nightprice.toml"
PREFIX = "NIGHTPRICE_"
FILE_VARIABLE = "NIGHTPRICE_SETTINGS"
# Variables under the prefix that are no settings: the file itself, and what tests and deployments hand over.
OTHER_VARIABLES = (FILE_VARIABLE, "NIGHTPRICE_TEST_", "NIGHTPRICE_SERVE_")
DEFAULT = "default"

Metric = Literal["accuracy", "macro_f1", "roc_auc", "log_loss", "ordinal_mae", "ece"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class XGBoostSettings(_Section):
    """Parameters of the default estimator, in XGBoost's own words; the defaults were chosen on training rows only."""

    rounds: Positive = Field(600, description="Most boosting rounds; early stopping usually ends before.")
    early_stopping_rounds: Positive = Field(
        40, description="Stop after so many rounds without a better log loss on the validation slice."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the training rows that early stopping watches."
    )
    learning_rate: float = Field(0.1, gt=0, le=1, description="Shrinkage of every round (eta).")
    max_depth: Annotated[int, Field(ge=1, le=20)] = Field(9, description="Depth of a tree.")
    min_child_weight: float = Field(1.0, ge=0, description="Least sum of hessians in a leaf.")
    subsample: float = Field(0.8, gt=0, le=1, description="Share of rows per round.")
    colsample_bytree: float = Field(0.7, gt=0, le=1, description="Share of features per tree.")
    reg_lambda: float = Field(5.0, ge=0, description="L2 penalty of leaf weights.")
    reg_alpha: float = Field(0.5, ge=0, description="L1 penalty of leaf weights.")
    class_balance: Share = Field(
        0.2, description="How far rare categories are weighed up: 0 not at all, 1 to the weight of frequent ones."
    )
    max_bin: Annotated[int, Field(ge=16, le=1024)] = Field(
        256, description="Histogram bins per feature; memory and precision of a split."
    )


class ForestSettings(_Section):
    """Parameters of the notebook's random forest; the defaults are the notebook's."""

    trees: Positive = Field(500, description="Number of trees, divided among the workers.")
    max_depth: Positive | None = Field(None, description="Depth of a tree; none grows until leaves are pure.")
    min_samples_leaf: Positive = Field(1, description="Least rows in a leaf.")
    class_weight: Literal["balanced", "none"] = Field(
        "balanced", description='"balanced" weighs rare categories up, "none" does not.'
    )


class GateSettings(_Section):
    """When `promote --if-better` calls a challenger better than the champion, on the same holdout rows."""

    metric: Metric = Field("log_loss", description="The metric that decides.")
    min_improvement: float = Field(
        0.0, ge=0, description="How much better the challenger must be, in the metric's own unit."
    )


class Settings(BaseSettings):
    """What can be set, checked as a whole; `origins()` tells where each value came from."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    contract: str = Field("transforms.listings:CONTRACT", description="The problem, as MODULE:NAME.")
    bins: Annotated[tuple[float, ...] | None, NoDecode] = Field(
        None, description="Upper bounds, inclusive, of every band but the last. None: the contract's."
    )
    labels: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="Names of the bands, one more than bins. None: the contract's."
    )
    minimum: float | None = Field(None, description="A row with a lower target is rejected. None: the contract's.")
    max_rejected: Share = Field(0.2, description="`process` fails if a larger share of the rows is rejected.")
    holdout_share: float = Field(
        0.15, gt=0, lt=1, description="Share of listings, by a stable hash of the id, that training never sees."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Seed of everything random in training.")
    model_name: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Name of the model in the registry. None: the contract's."
    )
    registry: str = Field(
        "./nightprice-registry", min_length=1, description="Registry of models: a folder, s3://, gs:// or abfs://."
    )
    cache_dir: Path = Field(
        Path(platformdirs.user_cache_dir("nightprice")), description="Downloads and models fetched from a registry."
    )
    training_storage: str | None = Field(
        None,
        description="Where workers hand over what they trained: a folder or bucket that all nodes reach. None: a temporary folder.",
    )
    training_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs of each training worker. None: one, or less where that would leave none to read the data.",
    )
    resource_wait_seconds: float = Field(
        600.0,
        gt=0,
        description="How long a command waits for a cluster's CPUs, while nodes may still come, and training for a worker's heartbeat.",
    )
    xgboost: XGBoostSettings = Field(XGBoostSettings(), description="The default estimator.")
    random_forest: ForestSettings = Field(ForestSettings(), description="The notebook's estimator.")
    gate: GateSettings = Field(GateSettings(), description="The rule of `promote --if-better`.")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("bins", "labels", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """A variable holds "90,180,400" (or the list in brackets)."""
        return [part.strip(" \"'") for part in value.strip(" []").split(",")] if isinstance(value, str) else value

    def load_contract(self) -> Contract:
        return load_contract(self.contract)

    def label(self, contract: Contract) -> Label:
        return contract.label.override(bins=self.bins, labels=self.labels, minimum=self.minimum)

    def as_json(self) -> dict[str, Any]:
        """For manifests: what was in force, in JSON's types."""
        return self.model_dump(mode="json")

    def origins(self) -> dict[str, str]:
        """Where every setting came from, by dotted name: "default", "file nightprice.toml" or "NIGHTPRICE_SEED"."""
        return {name: self._origins.get(name, DEFAULT) for name in setting_names()}

    def override(self, **values: Any) -> "Settings":
        """The same settings with those given on the command line (None: not given)."""
        given = {name: value for name, value in values.items() if value is not None}
        copy = self.model_copy(update=given)
        copy._origins = {**self._origins, **dict.fromkeys(given, "command line")}
        return copy


def setting_names(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, in the order of their documentation.

    >>> list(setting_names())[:2]
    ['bins', 'labels']
    """
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def load_settings(file: Path | None = None) -> Settings:
    """The settings in force: defaults, then the file, then variables.

    Raises UsageError for a file that is not there or no TOML, an unknown setting (with the closest match) or a value
    that cannot be.
    """
    path = _file(file)
    from_file = _read(path) if path else {}
    _check_variables()
    try:
        from_variables = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise UsageError(f"A {PREFIX}… variable can't be read: {error}. {_as_variables()}") from error
    origins = dict.fromkeys(_flat(from_file), f"file {path}") | {
        name: _variable(name) for name in _flat(from_variables)
    }
    try:
        settings = Settings(**_merged(from_file, from_variables))
    except ValidationError as error:
        raise UsageError(_explain(error, origins)) from error
    settings._origins = origins
    return settings


def _file(file: Path | None) -> Path | None:
    """The file to read; one that was named must be there."""
    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is None:
        return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None
    if not named.is_file():
        by = "--settings" if file else FILE_VARIABLE
        raise UsageError(
            f"{by} names {named}, but there is no such file. Write it, or leave {by} out to use the defaults."
        )
    return named


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}. Mend that line, as in: max_rejected = 0.1") from error
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}. Make it readable or name another file with --settings."
        ) from error


def _check_variables() -> None:
    known = {_variable(name) for name in setting_names()} | {_variable(name) for name in Settings.model_fields}
    if said := unread_variable(PREFIX, known, OTHER_VARIABLES):
        raise UsageError(f"{said} Unset it; `nightprice doctor` lists the settings.")


def _as_variables() -> str:
    return f"A setting of a section is written {_variable('xgboost.max_depth')}=8."


def _variable(name: str) -> str:
    """
    >>> _variable("xgboost.max_depth")
    'NIGHTPRICE_XGBOOST__MAX_DEPTH'
    """
    return PREFIX + name.replace(".", "__").upper()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for name, value in high.items():
        there = merged.get(name)
        merged[name] = _merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One sentence for the first thing wrong: which setting, from where, what was found, what is allowed."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    setting = next((known for known in setting_names() if name == known or name.startswith(f"{known}.")), name)
    where = origins.get(setting) or next((origins[key] for key in origins if key.startswith(name)), "the settings")
    if first["type"] == "extra_forbidden":
        hint = closest(name, [*Settings.model_fields, *setting_names()])
        return f'{where}: unknown setting "{name}".{hint} `nightprice doctor` lists the settings.'
    if not name:  # of the model as a whole: _check_pricing
        involved = sorted({origins[key] for key in ("bins", "labels", "minimum_price") if key in origins})
        return f"{', '.join(involved)}: {first['msg'].removeprefix('Value error, ')}"
    problem = first["msg"][0].lower() + first["msg"][1:]
    return f"{where}: {setting} can't be {first['input']!r}: {problem}."
