"""What a command prints: its result on standard output, all else on standard error, every error as one message."""

import errno
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from nightprice.errors import NightpriceError, first_line, printable
from pipeline import progress
from pipeline.cli.extras import install_line
from pipeline.cluster.causes import causes, without_advice

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERRUPTED = 130
# Wide enough that a table of models is not broken where there is no terminal to measure: logs, pipes, CI.
WIDTH_WITHOUT_TERMINAL = 130
# "ray.data.SomeError: …", the line with which a trace ends.
_NAMES_ERROR = re.compile(r"[\w.]+(Error|Exception): ")
# Between two lines about the progress, where they can't replace each other.
LINE_SECONDS = 10.0
_NOTHING_LOST = "Nothing was published: what was live stays live."


@dataclass
class Screen:
    """Where a command writes: `result` once at its end, `working` and `note` on the way."""

    stdout: TextIO
    as_json: bool

    @cached_property
    def _notes(self) -> "Console":
        return _console(sys.stderr)

    def result(self, data: Mapping[str, Any], *tables: "RenderableType") -> None:
        """The outcome: one JSON object for machines, or tables for people."""
        if self.as_json:
            print(json_line(data), file=self.stdout, flush=True)
            return
        console = _console(self.stdout)
        for table in tables:
            console.print(table)
        self.stdout.flush()

    def note(self, text: str) -> None:
        """One line for people on the way."""
        self._notes.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show that long work goes on, for how long, and how far it is; without a terminal, by a line now and then."""
        console = self._notes
        if not console.is_terminal:
            self.note(f"{what} …")
            with progress.watched(progress.at_intervals(LINE_SECONDS, lambda now: self.note(f"  {now}"))):
                yield
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            with progress.watched(lambda now: bar.update(task, description=f"{what}: {now}")):
                yield


@contextmanager
def screen(as_json: bool) -> Iterator[Screen]:
    """Keep standard output for the result: what libraries and Ray's processes print there goes to standard error.

    The descriptor itself is redirected, because child processes and C code do not use `sys.stdout`.
    """
    stdout = sys.stdout
    stdout.flush()
    own = _is_descriptor(stdout, 1)
    kept = os.fdopen(os.dup(1), "w", encoding=stdout.encoding, errors="replace") if own else stdout
    if own:
        os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield Screen(kept, as_json)
    finally:
        sys.stdout = stdout
        if own:
            os.dup2(kept.fileno(), 1)
            # The result was flushed, or its failure is reported already.
            with suppress(OSError):
                kept.close()


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def _console(stream: TextIO) -> "Console":
    from rich.console import Console
    from rich.segment import Segment

    class PrintableConsole(Console):
        """Escapes what data may bring to a terminal."""

        def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
            for text, style, control in super().render(*arguments, **options):
                yield Segment(text if control else printable(text), style, control)

    return PrintableConsole(file=stream, emoji=False, width=None if stream.isatty() else WIDTH_WITHOUT_TERMINAL)


def json_line(data: Mapping[str, Any]) -> str:
    r"""A result as one line of JSON, in which all that does not print is escaped.

    >>> print(json_line({"place": "Zürich\x9b"}))
    {"place": "Zürich\u009b"}
    """
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def plain(value: Any) -> Any:
    """A value in JSON's types: paths as text, numbers of numpy as numbers, NaN and infinity as null.

    >>> plain({"roc_auc": float("nan"), "at": Path("a/b")})
    {'roc_auc': None, 'at': 'a/b'}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report(error: BaseException, debug: bool, out: Screen, publishes: bool = False) -> int:
    """Print what went wrong, once, in a sentence; returns the exit code. See `explain`."""
    message, code = explain(error, publishes)
    if isinstance(error, BrokenPipeError):
        return code
    if debug:
        print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    _console(sys.stderr).print(f"Error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    if out.as_json:
        with suppress(OSError):  # where the result could not be written either
            out.result({"error": message, "exit_code": code})
    return code


def explain(error: BaseException, publishes: bool = False) -> tuple[str, int]:
    """The message and the exit code of any error; Ray's wrapping and chains of causes are looked through.

    Of a command that `publishes`, the message of an end halfway says that nothing was published.
    """
    nothing_lost = f" {_NOTHING_LOST}" if publishes else ""
    for cause in causes(error):
        if _is_ray(cause):
            # Ray's wrapper may be of the cause's type too, but its text is a trace.
            continue
        if isinstance(cause, NightpriceError):
            return str(cause), cause.exit_code
        if isinstance(cause, KeyboardInterrupt):
            return f"Interrupted.{nothing_lost}", INTERRUPTED
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return _explain_missing(cause.name), 1
        if isinstance(cause, OSError) and (cause.errno or cause.strerror):
            return _explain_system(cause), 1
    ours = [cause for cause in causes(error) if not _is_ray(cause)]
    if not ours:  # a worker that died leaves only a text, which ends with the reason
        return f"Ray failed: {_last_line(error)}{nothing_lost} `--debug` shows the whole trace.", 1
    return f"Unexpected {type(ours[-1]).__name__}: {first_line(ours[-1])}. This is a defect; `--debug` shows where.", 1


def _last_line(error: BaseException) -> str:
    """What a trace in text form says: its last line that names an error, as a message may have lines of its own."""
    lines = [line.strip() for line in without_advice(str(error)).splitlines() if line.strip()] or [type(error).__name__]
    line = next((line for line in reversed(lines) if _NAMES_ERROR.match(line)), lines[-1])
    return f"{line.rstrip('.')}."


def _is_ray(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "ray"


def _explain_missing(module: str) -> str:
    line = install_line(module)
    command = line or f"pip install {module.partition('.')[0]}"
    return f'This needs the Python module "{module}", which is not installed here. Install it: {command}'


def _explain_system(error: OSError) -> str:
    what = os.strerror(error.errno) if error.errno else str(error.strerror)
    where = f"{error.filename}: " if error.filename else ""
    reason = first_line(str(error.strerror or error))
    detail = "" if error.filename or reason == what else f" ({reason})"
    fixes = {
        errno.ENOSPC: "Free some space, or write to another place.",
        errno.EDQUOT: "Free some space, or write to another place.",
        errno.EACCES: "Ask for the right to read and write there, or name another place.",
        errno.EPERM: "Ask for the right to read and write there, or name another place.",
        errno.EROFS: "Name a place that can be written.",
        errno.ENOENT: "Check the name.",
    }
    return f"{where}{what}{detail}. {fixes.get(error.errno or 0, '`--debug` shows where.')}"
