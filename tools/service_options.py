"""The table of options in docs/service.md: `python -m tools.service_options`."""

from collections.abc import Iterator

from serve_app.options import ServeOptions, variable

# Defaults that differ from machine to machine, or are nothing to print.
_DISPLAYED = {"cache_dir": "the user's cache folder", "api_keys": "none", "cors_origins": "none"}


def option_table() -> Iterator[str]:
    """Every option with its variable, default and meaning, as lines of Markdown."""
    yield "| option | variable | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in ServeOptions.model_fields.items():
        yield f"| `{name}` | `{variable(name)}` | {_DISPLAYED.get(name, f'`{field.default}`')} | {field.description} |"


if __name__ == "__main__":
    print(*option_table(), sep="\n")
