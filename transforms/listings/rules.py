"""The rules of the notebooks: plain functions that read ONE raw text.

Each takes a text that is not blank and returns a value, or raises ValueError when the text cannot be
read. Nothing here knows of tables: `transforms.lift` applies the same functions to columns.
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
    """A whole number, read digit by digit: listing ids exceed 2**53, where floats lose the last digits.

    A fraction of zeros is tolerated, as spreadsheets write it.

    >>> integer("1009876543210987654"), integer("4.0")
    (1009876543210987654, 4)
    """
    if raw.isdecimal() and raw.isascii():
        return int(raw)
    match = _INTEGER.fullmatch(raw.strip())
    if match is None:
        raise ValueError(f"{raw!r} is no whole number")
    return int(match[1])


def number(raw: str) -> float:
    """A finite decimal number.

    >>> number("40.68494")
    40.68494
    """
    value = float(raw)
    if not math.isfinite(value) or "_" in raw:
        raise ValueError(f"{raw!r} is no finite number")
    return value


_BATHROOMS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?: +(?:shared +|private +)?baths?)?", re.IGNORECASE)
_HALF_BATH = re.compile(r"(?:shared |private )?half-bath", re.IGNORECASE)


def bathrooms(raw: str) -> float:
    """The number of bathrooms in a `bathrooms_text`, or in the older numeric column.

    The notebook took the first word as a number and so lost every half-bath.

    >>> bathrooms("1.5 shared baths"), bathrooms("Shared half-bath"), bathrooms("2.0")
    (1.5, 0.5, 2.0)
    """
    trimmed = raw.strip()
    if _HALF_BATH.fullmatch(trimmed):
        return 0.5
    match = _BATHROOMS.fullmatch(trimmed)
    if match is None:
        raise ValueError(f"{raw!r} is no number of bathrooms")
    return float(match[1])


_CURRENCY = r"(?:[^\W\d_]{1,3}\.?|[^\w\s.,'’+-]|[^\W\d_]{1,2}[^\w\s.,'’+-])"
_PRICE = re.compile(rf"(-?)\s*(?:{_CURRENCY}\s*)?(-?)([0-9](?:[0-9.,'’\s]*[0-9])?)(?:\s*({_CURRENCY}))?")
# What stands behind a number to multiply it is no currency.
_MAGNITUDES = {"k", "m", "mn", "mln", "mio", "bn"}
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_DIGIT_GROUPS = re.compile(r"[0-9]{1,3}(?:[,.][0-9]{3})*|[0-9]+")


def price(raw: str) -> float:
    """The amount of a printed price, whatever its currency.

    The notebook read the digits before the first other character, so "$1,234.00" became 1 and was dropped.
    The last of "." and "," is the decimal mark when both occur; alone, a comma before exactly three
    digits separates thousands, and so does a mark that repeats.

    >>> price("$1,234.00"), price("1.234,50 €"), price("HK$404"), price("75")
    (1234.0, 1234.5, 404.0, 75.0)
    """
    match = _PRICE.fullmatch(raw.strip())
    if match is None or (match[4] or "").lower().rstrip(".") in _MAGNITUDES:
        raise ValueError(f"{raw!r} is no price")
    digits = re.sub(r"['’\s]", "", match[3])
    if _THOUSANDS.fullmatch(digits):
        whole, fraction = digits, ""
    else:
        whole, mark, fraction = digits.rpartition("," if digits.rfind(",") > digits.rfind(".") else ".")
        whole, fraction = (whole, fraction) if mark else (fraction, "")
    if not _DIGIT_GROUPS.fullmatch(whole):
        raise ValueError(f"{raw!r} is no price: its digit groups do not add up")
    amount = float(re.sub(r"[.,]", "", whole) + "." + (fraction or "0"))
    if not math.isfinite(amount):
        raise ValueError(f"{raw[:60]!r} is no price: it has too many digits")
    return -amount if match[1] or match[2] else amount
