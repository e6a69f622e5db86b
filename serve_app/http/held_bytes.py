"""How many bytes of bodies and answers a replica holds at once. Asked in its event loop only, so nothing is locked."""

import ctypes
from collections.abc import Callable

import pyarrow as pa

from serve_app.errors import RequestError, overloaded

# Smaller bodies and answers are not counted: a connection costs more.
UNCOUNTED_BYTES = 8_192
# Once as many have gone, their memory is given back.
LARGE_BYTES = 32 * 2**20


class HeldBytes:
    """The bytes of all requests together.

    >>> held = HeldBytes(limit=100)
    >>> first, second = Hold(held), Hold(held)
    >>> first.set(90), second.set(10), held.total
    (None, None, 100)
    >>> second.set(11)
    Traceback (most recent call last):
    serve_app.errors.RequestError: Too many requests at once. Ask again in a moment.
    """

    def __init__(self, limit: int, emptied: Callable[[], object] = lambda: None) -> None:
        """`emptied` is called when many bytes were held, and none are any more."""
        self.limit, self.total = limit, 0
        self._most, self._emptied = 0, emptied

    def add(self, size: int) -> None:
        """Hold so many bytes more, or less."""
        self.total += size
        self._most = max(self._most, self.total)
        if not self.total and self._most > LARGE_BYTES:
            self._most = 0
            self._emptied()


class Hold:
    """The bytes of one request, which somebody sets to 0 at its end."""

    __slots__ = ("_held", "size")

    def __init__(self, held: HeldBytes) -> None:
        self._held, self.size = held, 0

    def check(self, size: int) -> None:
        """Raises RequestError 503 if the request can't hold so many bytes beside the others. Alone it can."""
        others = self._held.total - self.size
        if others and size > self.size and others + size > self._held.limit:
            raise _no_room()

    def set(self, size: int) -> None:
        """Hold so many bytes instead of those before. Raises RequestError 503."""
        self.check(size)
        self._held.add(size - self.size)
        self.size = size


def give_back() -> None:
    """Give free memory back to the system, which Arrow, and glibc between blocks in use, do not by themselves."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _no_room() -> RequestError:
    error = overloaded()
    # The rest of the body is not read.
    error.headers["Connection"] = "close"
    return error
