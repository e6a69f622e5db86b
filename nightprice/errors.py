"""Every error that this project raises for people to read has one base class:

    NightpriceError                 exit code 1: something a person can fix
    ├── UsageError                  2: wrong arguments, settings or options; AddressError (pipeline.io) and
    │                               RegistryUsageError are of this kind as well as of their own
    ├── ContractError               data, or a model, that does not fit the contract as a whole
    ├── UnknownValueError           a category that a model has not learned
    ├── GateRefused                 3: (pipeline.errors) a gate refused; nothing live has changed
    ├── StoreError                  (pipeline.io) a source or sink that can't be read or written
    ├── NodeError, ResourcesError   (pipeline.cluster) nodes that can't work, or too few of them
    ├── TrainingError, ExportError  (pipeline.train) nothing was published
    ├── EvaluationError             (pipeline.evaluation) rows that no model can be evaluated on
    ├── ArtifactError               (registry) a model folder that must not be used
    ├── RegistryError               (registry) a registry without what was asked for, or out of use
    │   ├── ConflictError           another process was faster; nothing was written
    │   └── UnreachableError        transient: the same call may work later
    └── RequestError                (serve_app) an HTTP answer other than 200

Each message says what was found, what was expected and what to do.
"""

import difflib
from collections.abc import Iterable, Sequence


class NightpriceError(Exception):
    """Something a person can fix: the message says what was found and what to do.

    `exit_code` is what the command line ends with: 1 failed, 2 wrong usage, 3 refused by a gate.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(NightpriceError):
    """Arguments, settings or options that cannot be right."""

    exit_code = 2


class ContractError(NightpriceError):
    """Data, or a model, that does not fit the contract as a whole: a missing column, another contract."""


class UnknownValueError(NightpriceError):
    """A category that a model has not learned; the message names the known ones."""


def printable(text: str) -> str:
    r"""A text for a terminal, a log or an answer: whatever does not print, as data may bring it, is escaped.

    Lines and tabs stay. `NightpriceError` and the console pass all that they say through here.

    >>> print(printable("Queens\x1b[2J\u202e, zażółć"))
    Queens\x1b[2J\u202e, zażółć
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def missing_column(where: str, names: Sequence[str], available: Sequence[str]) -> ContractError:
    """The error for a source that has none of the columns `names`.

    >>> print(missing_column("a.csv", ["colour"], ["id", "color"]))
    a.csv: column "colour" is missing. Did you mean "color"? Available columns: color, id.
    """
    return missing_columns(where, [" or ".join(f'"{name}"' for name in names)], [names[0]], available)


def missing_columns(
    where: str, needed: Sequence[str], names: Sequence[str], available: Sequence[str], advice: str = ""
) -> ContractError:
    """The error for a source without some columns: `needed` in words, `names` to find likely ones by.

    >>> print(missing_columns("a.csv", ['"colour"', '"id"'], ["colour", "id"], ["color", "size"]))
    a.csv: columns "colour", "id" are missing. Did you mean "color"? Available columns: color, size.
    """
    hints = dict.fromkeys(closest(name, available) for name in names)
    listed = ", ".join(sorted(available)[:100]) or "none"  # Some sources have thousands.
    is_missing = f"column {needed[0]} is" if len(needed) == 1 else f"columns {', '.join(needed)} are"
    return ContractError(f"{where}: {is_missing} missing.{advice}{''.join(hints)} Available columns: {listed}.")


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
