"""What all commands share: the options --settings, --json and --debug, one place for errors, and Ray around the
work.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline import progress
from pipeline.cli import console

if TYPE_CHECKING:
    from pipeline.settings import Settings

app = typer.Typer(
    name="nightprice",
    help="From raw rows to a promoted model, and predictions over HTTP.",
    epilog="Begin with: nightprice demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="TOML file of settings (default: nightprice.toml if it exists)."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, all else on standard error.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")]
COMMON_OPTIONS = {"settings": (SettingsFile, None), "json": (AsJson, False), "debug": (Debug, False)}


def _print_version(requested: bool) -> None:
    if requested:
        import nightprice

        print(nightprice.__version__)
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `nightprice` itself."""


@dataclass
class Run:
    """What a command gets beside its own options."""

    screen: console.Screen
    settings_file: Path | None

    def settings(self, **options: Any) -> "Settings":
        """The settings in force; options of the command line that are not None win."""
        from pipeline.settings import load_settings

        return load_settings(self.settings_file).override(**options)

    @contextmanager
    def ray(self, what: str) -> Iterator[None]:
        """Joins or starts Ray for the work named by `what`, and ends what it started."""
        from nightprice.ray_cluster import disconnect
        from nightprice.ray_environment import configure_pipeline

        configure_pipeline()
        import ray

        from pipeline.cluster import session

        joined = ray.is_initialized()
        with self.screen.working(
            "Joining Ray" if joined or os.environ.get("RAY_ADDRESS") else "Starting Ray on this machine"
        ):
            session.start()
        try:
            with self.screen.working(what), progress.watched(session.progress_gauge()), session.ray_errors():
                from pipeline.cluster.nodes import check_nodes
                from pipeline.cluster.resources import await_cpu, can_grow

                if can_grow():
                    check_nodes()
                    await_cpu(self.settings().resource_wait_seconds)
                yield
        finally:
            if not joined:
                disconnect(keep_logs=sys.exc_info()[1] is not None)


def command(
    example: str, *, publishes: bool = False
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Register a function `(run, own options…)` as a command: its docstring is the help, `example` stands below.

    `publishes`: it replaces what is live, all at once at its end.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        def run(**options: Any) -> None:
            common = {option: options.pop(option) for option in COMMON_OPTIONS}
            raise typer.Exit(_run(function, options, publishes=publishes, **common))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        signature = _with_common(function)
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {name: option.annotation for name, option in signature.parameters.items()}
        app.command(function.__name__, epilog=f"Example: {example}")(run)
        return function

    return register


def _with_common(function: Callable[..., int | None]) -> inspect.Signature:
    """The function's own options without `run`, then the common ones."""
    hints = get_type_hints(function, include_extras=True)
    _, *options = inspect.signature(function).parameters.values()
    own = [option.replace(annotation=hints[option.name]) for option in options]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in COMMON_OPTIONS.items()
    ]
    return inspect.Signature([*own, *common])


def _run(
    function: Callable[..., int | None],
    options: dict[str, Any],
    settings: Path | None,
    *,
    json: bool,
    debug: bool,
    publishes: bool = False,
) -> int:
    with console.screen(json) as screen:
        try:
            return function(Run(screen, settings), **options) or 0
        except (Exception, KeyboardInterrupt) as error:
            return console.report(error, debug, screen, publishes)
