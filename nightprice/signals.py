"""Signals that wait for what must not be interrupted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held(*signals: signal.Signals) -> Iterator[None]:
    """The first of these signals waits for the end of the block; a second one does not.

    In other threads than the main one, where Python handles no signals, the block is just run.

    >>> before = signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
    >>> with held(signal.SIGINT):
    ...     signal.raise_signal(signal.SIGINT)
    ...     print("done")
    done
    interrupted
    >>> _ = signal.signal(signal.SIGINT, before)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {}
    waiting: list[int] = []

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def hold(number: int, _: object) -> None:
        waiting.append(number)
        restore()

    for caught in signals:
        handlers[caught] = signal.signal(caught, hold)
    try:
        yield
    finally:
        restore()
    for number in waiting:
        signal.raise_signal(number)
