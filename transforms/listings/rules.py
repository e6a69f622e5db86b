"""The rules of the notebooks: functions that read ONE raw text of a listing, as those of `transforms.readers` do."""

import math
import re

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
        raise ValueError(f"{raw!r} is not a number of bathrooms")
    return float(match[1])


_CURRENCY = r"(?:[^\W\d_]{1,3}\.?|[^\w\s.,'’+-]|[^\W\d_]{1,2}[^\w\s.,'’+-])"
_PRICE = re.compile(rf"(-?)\s*(?:{_CURRENCY}\s*)?(-?)([0-9](?:[0-9.,'’\s]*[0-9])?)(?:\s*({_CURRENCY}))?")
# What stands behind a number to multiply it is not a currency.
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
        raise ValueError(f"{raw!r} is not a price")
    digits = re.sub(r"['’\s]", "", match[3])
    if _THOUSANDS.fullmatch(digits):
        whole, fraction = digits, ""
    else:
        whole, mark, fraction = digits.rpartition("," if digits.rfind(",") > digits.rfind(".") else ".")
        whole, fraction = (whole, fraction) if mark else (fraction, "")
    if not _DIGIT_GROUPS.fullmatch(whole):
        raise ValueError(f"{raw!r} is not a price: its digit groups do not add up")
    amount = float(re.sub(r"[.,]", "", whole) + "." + (fraction or "0"))
    if not math.isfinite(amount):
        raise ValueError(f"{raw[:60]!r} is not a price: it has too many digits")
    return -amount if match[1] or match[2] else amount
