"""How many requests a replica has in hand."""

import threading
import time


class Load:
    """The number of requests in hand, on average since the last look.

    Ray Serve looks at the requests that are there at one moment. A small one is answered within one iteration of the
    event loop, so Ray would find none, however many wait behind it.

    >>> load = Load()
    >>> load.begin()
    >>> 0 < load.mean() <= 1
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = self._changed = time.perf_counter()
        self._long, self._request_seconds = 0, 0.0

    def add(self, requests: int, seconds: float) -> None:
        """Small requests that were in hand together for so long."""
        with self._lock:
            self._request_seconds += requests * seconds

    def begin(self) -> None:
        """A long request arrives."""
        self._change(1)

    def end(self) -> None:
        """A long request is over."""
        self._change(-1)

    def mean(self) -> float:
        """The average since the last call."""
        with self._lock:
            now = self._count()
            mean = self._request_seconds / max(now - self._began, 1e-9)
            self._began, self._request_seconds = now, 0.0
        return mean

    def _change(self, by: int) -> None:
        with self._lock:
            self._count()
            self._long += by

    def _count(self) -> float:
        now = time.perf_counter()
        self._request_seconds += self._long * (now - self._changed)
        self._changed = now
        return now
