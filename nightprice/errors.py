"""The one base class of every error that this project raises for people to read."""

import difflib
from collections.abc import Iterable


class NightpriceError(Exception):
    """Something a person can mend: the message says what was found and what to do.

    `exit_code` is what the command line ends with: 1 failed, 2 wrong usage, 3 refused by a gate.
    """

    exit_code = 1


class UsageError(NightpriceError):
    """The command was called with something that cannot be right."""

    exit_code = 2


class ContractError(NightpriceError):
    """Data that does not fit the contract of a listing as a whole, such as a missing column."""


class UnknownValueError(NightpriceError):
    """A category that a model has not learned; the message names the known ones."""


def first_line(error: BaseException | str) -> str:
    """The first line of an error that is not blank, without its full stop; the error's type if there is none.

    >>> first_line(ValueError("No such table. ")), first_line(KeyError())
    ('No such table', 'KeyError')
    """
    lines = (line.strip().rstrip(". ") for line in str(error).splitlines())
    return next(filter(None, lines), "no reason given" if isinstance(error, str) else type(error).__name__)


def closest(word: str, known: Iterable[str]) -> str:
    """The hint at the end of an error: the closest known word, if one is close.

    >>> closest("Broklyn", ["Bronx", "Brooklyn"])
    ' Did you mean "Brooklyn"?'
    >>> closest("x", ["Bronx", "Brooklyn"])
    ''
    """
    by_folded = {name.casefold(): name for name in known}
    match = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f' Did you mean "{by_folded[match[0]]}"?' if match else ""
