"""The machinery of typed settings: arguments win over variables of the environment, these over a TOML file, and the
file over defaults.

`pipeline.settings` and `serve_app.options` declare what can be set. What is wrong with a value is one sentence, which
names where the value came from and never quotes a secret.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from nightprice.errors import UsageError, closest
from nightprice.service_links import without_service_links

DEFAULT = "default"
# The file that `load` reads; without, such as for `Settings()`, there is none.
_file: ContextVar[Path | None] = ContextVar("settings_file", default=None)


class LayeredSettings(BaseSettings):
    """Settings that know where each value came from. Subclasses set `env_prefix`; `load` makes them."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    other_variables: ClassVar[tuple[str, ...]] = ()
    """Beginnings of variables under the prefix that are not settings."""
    where_documented: ClassVar[str]
    """A sentence at the end of errors: where all settings are listed."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = without_service_links(env_settings.env_vars)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _file.get())

    @classmethod
    def variable(cls, name: str) -> str:
        """The variable of a setting, by its dotted name, as in "xgboost.max_depth"."""
        field = cls.model_fields.get(name)
        if field is not None and isinstance(field.validation_alias, str):
            return field.validation_alias
        return f"{cls.model_config['env_prefix']}{name.replace('.', '__')}".upper()

    def origins(self) -> dict[str, str]:
        """Where every setting came from, by dotted name: "default", "file nightprice.toml" or "NIGHTPRICE_SEED"."""
        return {name: self._origins.get(name, DEFAULT) for name in setting_names(type(self))}


S = TypeVar("S", bound=LayeredSettings)


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, in the order of their documentation.

    >>> class Section(BaseModel):
    ...     depth: int
    >>> class Example(BaseModel):
    ...     seed: int
    ...     tree: Section
    >>> list(setting_names(Example))
    ['seed', 'tree.depth']
    """
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def split_list(value: Any) -> Any:
    """A list as a variable holds it, separated by commas; anything but a text is returned as it is.

    >>> split_list("90, 180,400"), split_list('["Low", "High"]'), split_list([1])
    (['90', '180', '400'], ['Low', 'High'], [1])
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return [part.strip(" \"'") for part in inner.split(",") if part.strip()]


def load(model: type[S], file: Path | None = None, /, **arguments: Any) -> S:
    """The settings in force: `arguments`, then variables, then the file, then defaults.

    Raises UsageError for a file that is not TOML, a setting or variable that does not exist (with the closest match)
    or a value that is not allowed.
    """
    _refuse_unread_variables(model)
    token = _file.set(file)
    try:
        origins = _origins(model, file, arguments)
        settings = model(**arguments)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}. Fix that line, as in: seed = 1") from error
    except RecursionError:
        # Without the cause, whose trace is a thousand lines.
        raise UsageError(
            f"{file or 'A variable'} has brackets within brackets without end. No setting is deeper than a section."
        ) from None
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}. Make it readable or name another file.") from error
    except SettingsError as error:
        example = next(name for name in setting_names(model) if "." in name)
        raise UsageError(
            f"A variable can't be read: {error}. Set one value of the section, as in {model.variable(example)}=…"
        ) from error
    except ValidationError as error:
        # Without the cause, whose text quotes the values.
        raise UsageError(_explain(model, error, origins)) from None
    finally:
        _file.reset(token)
    settings._origins = origins
    return settings


def _refuse_unread_variables(model: type[LayeredSettings]) -> None:
    """pydantic-settings ignores variables that it does not know, so a typing error would silently change nothing."""
    known = {model.variable(name) for name in (*setting_names(model), *model.model_fields)}
    prefix = str(model.model_config["env_prefix"])
    for name in map(str.upper, without_service_links(os.environ)):
        if name.startswith(prefix) and name not in known and not name.startswith(model.other_variables):
            raise UsageError(
                f"There is no setting for the variable {name}.{closest(name, known)} Unset it. {model.where_documented}"
            )


def _origins(model: type[LayeredSettings], file: Path | None, arguments: Mapping[str, Any]) -> dict[str, str]:
    from_file = dict.fromkeys(_flat(TomlConfigSettingsSource(model, file).toml_data), f"file {file}")
    origins = from_file | dict(_from_variables(model))
    return {name: origin for name, origin in origins.items() if name not in arguments}


def _from_variables(model: type[LayeredSettings]) -> Iterator[tuple[str, str]]:
    present = {name.upper() for name, value in without_service_links(os.environ).items() if value}
    for name in setting_names(model):
        # A section may be one variable, of JSON.
        for variable in (model.variable(name), model.variable(name.partition(".")[0])):
            if variable in present:
                yield name, variable


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _explain(model: type[LayeredSettings], error: ValidationError, origins: Mapping[str, str]) -> str:
    """One sentence for the first thing wrong: which setting, from where, what was found, what is allowed."""
    first = error.errors(include_url=False)[0]
    problem = first["msg"].removeprefix("Value error, ")
    name = ".".join(str(part) for part in first["loc"])
    if not name:  # the settings do not fit together
        return f"{problem}. {model.where_documented}"
    setting = next((known for known in setting_names(model) if name == known or name.startswith(f"{known}.")), name)
    origin = origins.get(setting) or next((origins[key] for key in origins if key.startswith(name)), "")
    where = f"{origin}: " if origin else ""
    if first["type"] == "extra_forbidden":
        hint = closest(name, [*model.model_fields, *setting_names(model)])
        return f'{where}unknown setting "{name}".{hint} {model.where_documented}'
    value = "what it is" if _is_secret(model, setting) else repr(first["input"])
    return f"{where}{setting} can't be {value}: {problem[0].lower()}{problem[1:]}."


def _is_secret(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and _holds_secret(field.annotation)


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))
