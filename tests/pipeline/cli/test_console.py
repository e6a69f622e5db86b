"""What a command prints is safe to look at: data bring no commands to a terminal."""

import io
import json
import sys

import pytest
from rich.console import Group, RenderableType
from rich.text import Text

from nightprice.errors import NightpriceError
from pipeline.cli import console
from pipeline.cli.render import render_history, render_models, render_rows, render_table

RUBBISH = "\x1b[2J\x07\r\x9b31m\u202e"


def is_clean(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


@pytest.mark.parametrize("as_json", [False, True])
def test_results_are_clean(as_json: bool) -> None:
    written = io.StringIO()
    screen = console.Screen(written, as_json)

    screen.result(
        {"place": f"Zürich{RUBBISH}"},
        Group(Text(RUBBISH), render_table(RUBBISH, ["place"], [[f"Zürich{RUBBISH}"]])),
    )

    assert is_clean(written.getvalue()), ascii(written.getvalue())
    assert "Zürich" in written.getvalue()
    if as_json:
        assert json.loads(written.getvalue()) == {"place": f"Zürich{RUBBISH}"}


@pytest.mark.parametrize("error", [NightpriceError(RUBBISH), OSError(2, "No", RUBBISH), ValueError(RUBBISH)])
@pytest.mark.parametrize("debug", [False, True])
def test_notes_and_errors_are_clean(capsys: pytest.CaptureFixture[str], error: Exception, debug: bool) -> None:
    screen = console.Screen(sys.stdout, as_json=False)

    screen.note(f"Reading {RUBBISH}")
    console.report(error, debug, screen)

    printed = capsys.readouterr().err
    assert "Error: " in printed
    assert is_clean(printed), ascii(printed)


def test_a_note_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    console.Screen(sys.stdout, as_json=False).note("port, " * 100)

    assert capsys.readouterr().err.count("\n") == 1


VERSION = {"version": "1", "created": "2026", "estimator": RUBBISH, "metrics": {"accuracy": 0.7}}


@pytest.mark.parametrize(
    "table",
    [
        render_models(RUBBISH, [VERSION, {**VERSION, "error": f"is not a model: {RUBBISH}"}], {"1": [RUBBISH]}),
        render_history(
            RUBBISH,
            [dict.fromkeys(("number", "action", "version", "previous", "when", "who", "why"), f"[bold]{RUBBISH}")],
        ),
        render_rows(
            {
                "rows": {"read": 2, "accepted": 1, "rejected": 1},
                "version": RUBBISH,
                "reasons": {f"{RUBBISH}:unknown": 1},
                "warnings": {RUBBISH: 1},
                "notes": [RUBBISH],
            },
            RUBBISH,
        ),
    ],
    ids=["models", "history", "rows"],
)
def test_what_a_registry_and_a_dataset_say_is_clean(table: RenderableType) -> None:
    written = io.StringIO()
    console.Screen(written, as_json=False).result({}, table)
    assert "x1b" in written.getvalue()
    assert is_clean(written.getvalue()), ascii(written.getvalue())
