"""Streams of bytes, in Python, between a file and its reader."""

import io
import threading
from collections.abc import Iterator

import pyarrow as pa

BLOCK_BYTES = 16 * 2**20
# No record is longer; a file of a megabyte may unpack to a line of a gigabyte.
LONGEST_LINE = 4 * 2**20


class GuardedStream(io.RawIOBase):
    """A stream over another that is not closed while it is read, and is at its end once it is closed.

    Arrow reads ahead in a thread of its own, which may still read when its reader has failed and is closed.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            return b"" if self.closed else self.read_block(size if size >= 0 else None)

    def read_block(self, size: int | None) -> bytes:
        """The next bytes, none at the end."""
        block: bytes = self._stream.read(size)
        return block

    def close(self) -> None:
        with self._lock:
            if not self.closed:
                self._stream.close()
                super().close()


def lines_of(stream: pa.NativeFile) -> Iterator[bytes]:
    """The lines of a stream, without their ends, cut off after LONGEST_LINE bytes; the last one may be empty."""
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        first, *others = block.split(b"\n")
        rest = (rest + first)[:LONGEST_LINE]
        if others:
            yield rest
            yield from (line[:LONGEST_LINE] for line in others[:-1])
            rest = others[-1][:LONGEST_LINE]
    yield rest
