"""The tables of settings in docs/settings.md and docs/service.md: `python -m tools.settings_tables pipeline` (or
`service`)."""

import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nightprice.settings import LayeredSettings, setting_names
from pipeline.settings import Settings
from serve_app.options import ServeOptions

MODELS: dict[str, type[LayeredSettings]] = {"pipeline": Settings, "service": ServeOptions}
# Defaults that differ from machine to machine, are long, or are nothing to print.
_DISPLAYED = {
    "cache_dir": "the user's cache folder",
    "api_keys": "none",
    "cors_origins": "none",
    "missing_values": "[data-contract.md](data-contract.md#fields)",
}


def settings_table(model: type[LayeredSettings]) -> Iterator[str]:
    """Every setting with its variable, default and meaning, as lines of Markdown."""
    yield "| setting | variable | default | meaning |"
    yield "|---|---|---|---|"
    for name in setting_names(model):
        field = _field(model, name)
        default = _DISPLAYED.get(name, f"`{field.default}`")
        yield f"| `{name}` | `{model.variable(name)}` | {default} | {field.description} |"


def _field(model: type[BaseModel], name: str) -> FieldInfo:
    first, _, rest = name.partition(".")
    field = model.model_fields[first]
    if not rest:
        return field
    assert isinstance(field.annotation, type)
    return _field(field.annotation, rest)


if __name__ == "__main__":
    print(*settings_table(MODELS[sys.argv[1]]), sep="\n")
