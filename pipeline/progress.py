"""What a run does now and how far it is: told where results arrive, shown by whoever watches."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar


@dataclass(frozen=True)
class Progress:
    """A moment of a run.

    >>> now = Progress("cleaning", {"rows": 30_000, "tasks": 1}, {"tasks": 4}, seconds=2.0)
    >>> print(now)
    cleaning: 30,000 rows (15,000/s), 1 of 4 tasks
    >>> print(Progress("boosting", {"rounds": 50}, {"rounds": 600}, "validation log loss 0.8123"))
    boosting: 50 of 600 rounds, validation log loss 0.8123
    """

    stage: str
    counts: Mapping[str, int] = field(default_factory=dict)
    """What is done, by its unit."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """How many there are of a unit, where that is known."""
    note: str = ""
    seconds: float = 0.0
    """Since the stage began."""

    @property
    def share(self) -> float | None:
        """The share that is done, where the total is known."""
        return next((self.counts.get(unit, 0) / total for unit, total in self.totals.items() if total), None)

    def __str__(self) -> str:
        figures = [self._figure(unit, count) for unit, count in self.counts.items() if unit in (*self.totals, "rows")]
        return f"{self.stage}: {', '.join(filter(None, (*figures, self.note)))}".removesuffix(": ")

    def _figure(self, unit: str, count: int) -> str:
        total = f"of {self.totals[unit]:,} " if unit in self.totals else ""
        rate = f" ({count / self.seconds:,.0f}/s)" if unit == "rows" and self.seconds > 0 else ""
        return f"{count:,} {total}{unit}{rate}"


Watcher = Callable[[Progress], None]


def at_intervals(seconds: float, watcher: Watcher) -> Watcher:
    """The same watcher, called once in so many seconds at most; the beginning of a stage it sees at once."""
    last = ("", 0.0)

    def watch(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.stage != last[0] or now - last[1] >= seconds:
            last = (progress.stage, now)
            watcher(progress)

    return watch


class _Run:
    """The one that this process works on."""

    watchers: ClassVar[list[Watcher]] = []
    now = Progress("")
    began = 0.0


@contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """A block whose progress is shown: `by` is called at each step, in the thread that tells it."""
    _Run.watchers.append(by)
    try:
        yield
    finally:
        _Run.watchers.remove(by)


def begin(stage: str, **totals: int | None) -> None:
    """A stage begins; `totals` says how much there is to do, by unit: `begin("boosting", rounds=600)`."""
    _Run.began = time.monotonic()
    tell(Progress(stage, totals={unit: total for unit, total in totals.items() if total}))


def advance(note: str = "", **counts: int) -> None:
    """So much more is done of the stage that began last, by unit: `advance(rows=1_000, tasks=1)`."""
    now = _Run.now
    sums = {unit: now.counts.get(unit, 0) + count for unit, count in counts.items()}
    tell(replace(now, counts={**now.counts, **sums}, note=note, seconds=time.monotonic() - _Run.began))


def tell(progress: Progress) -> None:
    """Show a moment, which may come from another process."""
    _Run.now = progress
    for watcher in _Run.watchers:
        watcher(progress)
