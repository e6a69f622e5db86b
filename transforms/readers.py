"""Rules that many fields share: plain functions that read ONE raw text.

Each takes a text that is not blank and returns a value, or raises ValueError if the text can't be read. A rule knows
nothing of tables: `transforms.lift` applies the same function to columns.
"""

import json
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


_CURRENCY = r"(?:[^\W\d_]{1,3}\.?|[^\w\s.,'’+-]|[^\W\d_]{1,2}[^\w\s.,'’+-])"
_AMOUNT = re.compile(rf"(-?)\s*(?:{_CURRENCY}\s*)?(-?)([0-9](?:[0-9.,'’\s]*[0-9])?)(?:\s*({_CURRENCY}))?")
# What stands behind a number to multiply it is not a currency.
_MAGNITUDES = {"k", "m", "mn", "mln", "mio", "bn"}
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_DIGIT_GROUPS = re.compile(r"[0-9]{1,3}(?:[,.][0-9]{3})*|[0-9]+")


def amount(raw: str) -> float:
    """A printed amount of money, whatever its currency.

    The last of "." and "," is the decimal mark when both occur; alone, a comma before exactly three
    digits separates thousands, and so does a mark that repeats.

    >>> amount("$1,234.00"), amount("1.234,50 €"), amount("HK$404"), amount("75")
    (1234.0, 1234.5, 404.0, 75.0)
    """
    match = _AMOUNT.fullmatch(raw.strip())
    if match is None or (match[4] or "").lower().rstrip(".") in _MAGNITUDES:
        raise ValueError(f"{raw!r} is not an amount")
    digits = re.sub(r"['’\s]", "", match[3])
    if _THOUSANDS.fullmatch(digits):
        whole, fraction = digits, ""
    else:
        whole, mark, fraction = digits.rpartition("," if digits.rfind(",") > digits.rfind(".") else ".")
        whole, fraction = (whole, fraction) if mark else (fraction, "")
    if not _DIGIT_GROUPS.fullmatch(whole):
        raise ValueError(f"{raw!r} is not an amount: its digit groups do not add up")
    value = float(re.sub(r"[.,]", "", whole) + "." + (fraction or "0"))
    if not math.isfinite(value):
        raise ValueError(f"{raw[:60]!r} is not an amount: it has too many digits")
    return -value if match[1] or match[2] else value


def list_of_texts(raw: str) -> list[str]:
    r"""The items of a JSON list of texts: for a `ListColumn`.

    >>> list_of_texts('["TV", "Fast wifi \\u2013 100 Mbps"]')
    ['TV', 'Fast wifi – 100 Mbps']
    """
    try:
        items = json.loads(raw)
    except RecursionError:
        raise ValueError("the list is nested too deeply") from None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{raw[:60]!r} is not a list of texts")
    return items
