"""How far a run is, told and shown."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from pipeline import progress
from pipeline.cli import console
from pipeline.progress import Progress


def test_what_is_told_adds_up_within_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 10.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock))
    seen: list[Progress] = []

    with progress.watched(seen.append):
        progress.begin("cleaning", tasks=4)
        clock = 12.0
        progress.advance(rows=1_000, tasks=1)
        progress.advance(rows=2_000, tasks=1)
        progress.begin("checking")
    progress.begin("nobody watches")

    assert [str(moment) for moment in seen] == [
        "cleaning",
        "cleaning: 1,000 rows (500/s), 1 of 4 tasks",
        "cleaning: 3,000 rows (1,500/s), 2 of 4 tasks",
        "checking",
    ]
    assert [moment.share for moment in seen] == [0.0, 0.25, 0.5, None]


def test_a_total_that_nobody_knows_is_not_shown() -> None:
    seen: list[Progress] = []

    with progress.watched(seen.append):
        progress.begin("cleaning", tasks=None)
        progress.advance(rows=7, tasks=1)

    assert re.fullmatch(r"cleaning: 7 rows \([\d,]+/s\)", str(seen[-1]))
    assert seen[-1].share is None


def test_a_watcher_at_intervals_sees_the_beginning_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock))
    seen: list[str] = []

    with progress.watched(progress.at_intervals(10.0, lambda moment: seen.append(str(moment)))):
        for stage in ("boosting", "evaluating"):
            progress.begin(stage, rounds=30)
            for _ in range(3):
                clock += 4.0
                progress.advance(rounds=10)

    assert seen == [
        "boosting",
        "boosting: 30 of 30 rounds",
        "evaluating",
        "evaluating: 30 of 30 rounds",
    ]


def test_without_a_terminal_the_progress_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)

    with console.Screen(sys.stdout, as_json=False).working("Processing raw"):
        progress.begin("cleaning", tasks=2)
        progress.advance(tasks=1)

    assert capsys.readouterr().err.splitlines() == ["Processing raw …", "  cleaning", "  cleaning: 1 of 2 tasks"]


def test_in_a_terminal_the_progress_stands_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with console.Screen(sys.stdout, as_json=False).working("Processing raw"):
        progress.begin("cleaning", tasks=2)
        progress.advance(tasks=1)

    assert "Processing raw: cleaning: 1 of 2 tasks" in terminal.getvalue()
    assert "\x1b[2K" in terminal.getvalue(), "the line is replaced"
