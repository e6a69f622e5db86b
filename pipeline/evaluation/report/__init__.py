"""The report of a model: one HTML page that needs nothing else, to look at rather than to read."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nightprice.errors import printable
from pipeline.evaluation.report import charts, view


def render_report(manifest: Mapping[str, Any], dataset_manifest: Mapping[str, Any]) -> str:
    """The report of a model version as an HTML page, from its manifest and that of the dataset it was trained on.

    The page holds its style and pictures, runs no script and names no outside address. Every text is escaped.
    Parts that are empty (no comparison, no importance, no sources) are left out.
    """
    here = files(__name__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=view.percent, count=view.count, bytes=view.bytes_text, breakable=view.breakable, when=view.when
    )
    template = environment.from_string(here.joinpath("template.html").read_text("utf-8"))
    style = Markup(here.joinpath("style.css").read_text("utf-8"))  # our own file, not data
    return printable(template.render(view.page(manifest, dataset_manifest), charts=charts, style=style))
