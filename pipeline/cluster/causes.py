"""Looking through what Ray wraps around an error."""

import re
from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what caused it, innermost last; Ray keeps what a task raised in `cause`.

    Each is yielded once: an error that was unwrapped is the cause of its own wrapper.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__


_ADVICE = r"Failed to .+ after \d+/\d+ attempt"


def without_advice(message: str) -> str:
    """A message without what Ray Data appends to each: how often it tried, and how to make it try again."""
    return re.split(rf"\n{_ADVICE}", message)[0]


def is_advice(text: object) -> bool:
    """Whether a text is such an appendix: of an OSError it becomes the third argument, which is the name of a file."""
    return isinstance(text, str) and re.match(_ADVICE, text) is not None
