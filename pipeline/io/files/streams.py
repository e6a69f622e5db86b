"""Streams in Python between a file and Arrow's readers."""

import io
import threading

import pyarrow as pa


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
