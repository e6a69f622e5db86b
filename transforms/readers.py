"""Rules that many fields share: plain functions that read ONE raw text.

Each takes a text that is not blank and returns a value, or raises ValueError if the text can't be read. A rule knows
nothing of tables: `transforms.lift` applies the same function to columns.
"""

import math
import re


def text(raw: str) -> str:
    """Trimmed text.

    >>> text(" Brooklyn ")
    'Brooklyn'
    """
    return raw.strip()


_INTEGER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?", re.ASCII)


def integer(raw: str) -> int:
    """A whole number, read digit by digit: ids exceed 2**53, where floats lose the last digits.

    A fraction of zeros is accepted, as spreadsheets write it.

    >>> integer("1009876543210987654"), integer("4.0")
    (1009876543210987654, 4)
    """
    if raw.isdecimal() and raw.isascii():
        return int(raw)
    match = _INTEGER.fullmatch(raw.strip())
    if match is None:
        raise ValueError(f"{raw!r} is not a whole number")
    return int(match[1])


def number(raw: str) -> float:
    """A finite decimal number.

    >>> number("40.68494")
    40.68494
    """
    value = float(raw)
    if not math.isfinite(value) or "_" in raw:
        raise ValueError(f"{raw!r} is not a finite number")
    return value
