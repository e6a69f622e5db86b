"""The rules of the notebooks: functions that read ONE raw text of a listing, as those of `transforms.readers` do."""

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
