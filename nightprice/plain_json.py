"""JSON that someone else may have written: standard, and of a depth that every function can follow."""

import json
from typing import Any

# A manifest has 6 levels. Python's own limit depends on what is on the stack already, and ends as RecursionError.
MOST_LEVELS = 50


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, for NaN and infinity, and beyond MOST_LEVELS.

    >>> parse_json('{"rows": [1, 2]}')
    {'rows': [1, 2]}
    >>> parse_json("[" * 99 + "]" * 99)
    Traceback (most recent call last):
    ValueError: nested deeper than 50 levels
    """
    try:
        value = json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        value = None
        is_deep = True
    else:
        is_deep = _is_deep(value)
    if is_deep:
        raise ValueError(f"nested deeper than {MOST_LEVELS} levels")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        level = [inner for outer in level for inner in _inner(outer)]
    return bool(level)


def _inner(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        _refuse(text)
    return number


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not a finite number")
