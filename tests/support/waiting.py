"""Waiting for an event that only asking tells."""

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def await_that(
    look: Callable[[], T], condition: Callable[[T], Any], seconds: float, process: "subprocess.Popen[Any] | None" = None
) -> T:
    """What was seen as soon as it fulfils a condition; fails if another process, which brings it about, ends first."""
    deadline = time.monotonic() + seconds
    while not condition(found := look()):
        assert process is None or process.poll() is None, "".join(map(str, process.communicate())) if process else ""
        assert time.monotonic() < deadline, f"not within {seconds} s; last seen: {found}"
        time.sleep(0.05)
    return found


def until(true: Callable[[], Any], process: "subprocess.Popen[Any] | None" = None, seconds: float = 300) -> Any:
    """Wait for an event; what `true` returned then."""
    return await_that(true, bool, seconds, process)
