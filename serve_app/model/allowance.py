"""What the work on one request may still cost. It is asked between parts of the work, by the thread that does it."""

import math
import time

from serve_app.errors import timed_out, too_many_problems


class Allowance:
    """Time, and bytes of problems in the answer.

    >>> allowance = Allowance(problem_bytes=100)
    >>> allowance.spend(60)
    >>> allowance.spend(60)
    Traceback (most recent call last):
    serve_app.errors.RequestError: The problems fill more than 100 bytes. Send fewer records at once.
    """

    __slots__ = ("_deadline", "_limit", "_seconds", "_spent")

    def __init__(self, seconds: float = math.inf, problem_bytes: float = math.inf) -> None:
        """`seconds` count from now on."""
        self._seconds, self._limit, self._spent = seconds, problem_bytes, 0
        self._deadline = time.monotonic() + seconds

    def stop(self) -> None:
        """Nobody waits for the answer any more: the work ends at its next check."""
        self._deadline = -math.inf

    def check(self) -> None:
        """Raises RequestError 408 if the time is over."""
        if time.monotonic() > self._deadline:
            raise timed_out(self._seconds)

    def spend(self, problem_bytes: int) -> None:
        """Count bytes before they are made. Raises RequestError 413 beyond the limit."""
        self._spent += problem_bytes
        if self._spent > self._limit:
            raise too_many_problems(int(self._limit))
