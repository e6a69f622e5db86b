"""Finds a quote that swallows rows: one that opens a value and is not closed in its own row.

Such a value runs on to the next quote, rows below, and all rows between are gone without a word: the file stays valid
CSV. Lines that begin as rows do are counted while the file is read; only where they are not as many as the rows is the
file read again, row by row.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.io.files.streams import BLOCK_BYTES, GuardedStream, lines_of
from pipeline.io.stores import StoreError

_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*")
_BREAK = ord("\n")
# What numbers and their quotes consist of.
_OF_NUMBERS = np.isin(np.arange(256), np.frombuffer(b'0123456789.eE+"', np.uint8))


class WatchedStream(GuardedStream):
    """A stream that counts the lines that begin as the first row does: with a number, or just anyhow.

    Costs about one hundredth of decompressing, parsing and cleaning the same bytes.
    """

    def __init__(self, stream: pa.NativeFile, delimiter: str) -> None:
        super().__init__(stream)
        self._delimiter = delimiter.encode()
        self._rest, self._starts, self._header_is_read = b"", 0, False
        self._is_numbered: bool | None = None

    def read_block(self, size: int | None) -> bytes:
        block = super().read_block(size)
        end = block.rfind(b"\n") + 1
        if end:
            first = block.find(b"\n") + 1
            self._count(self._rest + block[:first])
            self._count(memoryview(block)[first:end])
            self._rest = block[end:]
        elif block:
            self._rest += block
        elif self._rest:
            self._count(self._rest + b"\n")
            self._rest = b""
        return block

    def _count(self, lines: bytes | memoryview) -> None:
        """Count whole lines; the first ever is the header."""
        if not self._header_is_read:
            self._header_is_read = True
        elif len(lines):
            if self._is_numbered is None:
                first = bytes(lines[:100]).partition(b"\n")[0]
                self._is_numbered = _starting_with_number(first + b"\n", self._delimiter) == 1
            self._starts += self._starts_in(lines)

    def _starts_in(self, lines: bytes | memoryview) -> int:
        return _starting_with_number(lines, self._delimiter) if self._is_numbered else _filled(lines)

    def has_rows(self, rows: int, numbered: int, invalid: Iterable[str]) -> bool:
        """Whether the lines that begin as rows do are as many as the good rows, of which so many are `numbered`, and
        those `invalid` ones that begin so.
        """
        lines = [text.partition("\n")[0].encode() + b"\n" for text in invalid]
        return self._starts == (numbered if self._is_numbered else rows) + sum(map(self._starts_in, lines))


def count_numbered(column: pa.Array) -> int:
    """How many texts, as binary, begin with a digit or are empty.

    >>> count_numbered(pa.array([b"12", None, b"#REF!", b"5.4E+17"]))
    3
    """
    if not len(column):
        return 0
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    filled = ends[:-1][ends[1:] > ends[:-1]]
    first = np.frombuffer(data, np.uint8)[filled] if len(filled) else filled
    return len(column) - len(filled) + int(np.count_nonzero((first >= ord("0")) & (first <= ord("9"))))


def _starting_with_number(lines: bytes | memoryview, delimiter: bytes) -> int:
    """How many of some whole lines have a number, or nothing, before their first delimiter.

    >>> _starting_with_number(b'7,a\\n"8",b\\n,c\\n9 d,e\\n",f\\n', b",")
    3
    """
    data = np.frombuffer(lines, np.uint8)
    at = np.concatenate(([0], np.flatnonzero(data == _BREAK)[:-1] + 1))
    count = int(np.count_nonzero(data[at] == ord(delimiter)))
    at = at + (data[at] == ord('"'))
    at = at[(data[at] >= ord("0")) & (data[at] <= ord("9"))] + 1
    while len(at):
        signs = data[at]
        count += int(np.count_nonzero(signs == ord(delimiter)))
        at = at[_OF_NUMBERS[signs]] + 1
    return count


def _filled(lines: bytes | memoryview) -> int:
    """How many of some whole lines are not blank."""
    data = np.frombuffer(lines, np.uint8)
    return int(np.count_nonzero(np.diff(np.flatnonzero(data == _BREAK), prepend=-1) > 1))


@dataclass(frozen=True)
class SwallowedRows:
    """A value that holds whole rows."""

    first_line: int
    last_line: int


def check_quotes(stream: Callable[[], pa.NativeFile], path: str, delimiter: str) -> None:
    """Raise StoreError if a value of a CSV file holds whole rows; it names the first such value by its line."""
    with stream() as opened:
        swallowed = next(find_swallowed(_lines(opened), delimiter), None)
    if swallowed is not None:
        lost = swallowed.last_line - swallowed.first_line
        raise StoreError(
            f'"{path}", line {swallowed.first_line:,}: a quote opens a value, is not closed in its row and takes in '
            f"the {'next line' if lost == 1 else f'{lost:,} lines'} up to line {swallowed.last_line:,}, which "
            f"{'is a row' if lost == 1 else 'hold rows'}. Close the quote, or write it twice inside a quoted value."
        )


def _lines(stream: pa.NativeFile) -> Iterator[str]:
    for line in lines_of(stream):
        # To Python's reader a bare carriage return ends a row.
        yield line.decode("latin-1").replace("\r", " ") + "\n"


def find_swallowed(lines: Iterator[str], delimiter: str) -> Iterator[SwallowedRows]:
    """The values of a CSV file that hold whole rows.

    >>> rows = ["id,name,size\\n", "1,loft,80\\n", '2,"loft,90\\n', '3,"loft,70\\n']
    >>> list(find_swallowed(iter(rows), ","))
    [SwallowedRows(first_line=3, last_line=4)]
    """
    csv.field_size_limit(sys.maxsize)
    taken: list[str] = []
    size = 0

    def remembered() -> Iterator[str]:
        # A value that goes on for so long ends here, so that it is looked at.
        nonlocal size
        for line in lines:
            taken.append(line)
            size += len(line)
            yield line
            if size > BLOCK_BYTES:
                return

    reader = csv.reader(remembered(), delimiter=delimiter)
    columns = 0
    model: list[str] = []
    for row in reader:
        columns = columns or len(row)
        if len(taken) > 1:
            is_row = [_looks_like_row(line, columns, model, delimiter) for line in taken]
            if is_row[0] and any(is_row[1:]):
                yield SwallowedRows(reader.line_num - len(taken) + 1, reader.line_num)
        elif len(row) == columns and reader.line_num > 1:
            model = row
        taken.clear()
        size = 0


def _looks_like_row(line: str, columns: int, model: list[str], delimiter: str) -> bool:
    """Whether a line alone could be a row: long enough, and numbers where the last good row had them."""
    pieces = line.rstrip("\r\n").split(delimiter)
    if len(pieces) < columns:
        return False
    if model and _NUMBER.fullmatch(model[0]):
        return _NUMBER.fullmatch(pieces[0].strip('"')) is not None
    (values,) = csv.reader([line], delimiter=delimiter)
    values = values if len(values) == columns else pieces
    numbers = [position for position, value in enumerate(model) if _NUMBER.fullmatch(value)]
    fitting = [values[position] for position in numbers if position < len(values)]
    return sum(map(bool, map(_NUMBER.fullmatch, fitting))) * 2 > len(numbers) or not numbers
