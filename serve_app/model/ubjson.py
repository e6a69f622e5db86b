"""A reader of UBJSON (https://ubjson.org), in which XGBoost keeps its models: the service reads them without
XGBoost.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

# Markers of numbers, big-endian.
_NUMBERS = {
    marker: np.dtype(kind)
    for marker, kind in zip(b"iUIlLdD", ("i1", "u1", ">i2", ">i4", ">i8", ">f4", ">f8"), strict=True)
}
_CONSTANTS = {ord("Z"): None, ord("T"): True, ord("F"): False}


def loads(data: bytes) -> Any:
    """The value in a document: arrays of numbers of one type as numpy arrays, other ones as lists.

    Raises ValueError for what is no UBJSON.

    >>> loads(b"{i\\x01aSi\\x02hii\\x01b[$d#i\\x01?\\x80\\x00\\x00}")
    {'a': 'hi', 'b': array([1.], dtype=float32)}
    """
    reader = _Reader(data)
    try:
        return reader.value(reader.byte())
    except (IndexError, RecursionError) as error:
        raise ValueError("the document breaks off") from error


class _Reader:
    """A document and how far it was read."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def value(self, marker: int) -> Any:
        if marker in _NUMBERS:
            return self._numbers(marker, 1)[0].item()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        match chr(marker):
            case "S":
                return self._text(self._length())
            case "[":
                return self._array()
            case "{":
                return dict(self._members())
        raise ValueError(f"unknown marker {chr(marker)!r} at byte {self._at}")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if length < 0 or len(taken) < length:
            raise IndexError
        self._at += length
        return taken

    def _numbers(self, marker: int, count: int) -> Any:
        kind = _NUMBERS[marker]
        return np.frombuffer(self._take(count * kind.itemsize), kind).astype(kind.newbyteorder("="))

    def _length(self) -> int:
        length = self.value(self.byte())
        if not isinstance(length, int):
            raise ValueError(f"a length that is no whole number at byte {self._at}")
        return length

    def _text(self, length: int) -> str:
        return self._take(length).decode()

    def _is_next(self, marker: str) -> bool:
        """Whether this marker comes next; if so, it is read."""
        found = self._data[self._at : self._at + 1] == marker.encode()
        self._at += found
        return found

    def _array(self) -> Any:
        kind = self.byte() if self._is_next("$") else None
        if not self._is_next("#"):
            return list(self._items())
        count = self._length()
        if kind in _NUMBERS:
            return self._numbers(kind, count)
        return [self.value(kind or self.byte()) for _ in range(count)]

    def _items(self) -> Iterator[Any]:
        while not self._is_next("]"):
            yield self.value(self.byte())

    def _members(self) -> Iterator[tuple[str, Any]]:
        while not self._is_next("}"):
            name = self._text(self._length())
            yield name, self.value(self.byte())
