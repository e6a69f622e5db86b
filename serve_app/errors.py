"""What a caller is told when a request can't be answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nightprice.errors import NightpriceError

# When to ask again after an overload, in seconds: bulk work ends within about that.
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Problem:
    """One wrong field of a request.

    >>> problem = Problem("guests", "out_of_range", "0", "a whole number from 1 to 64")
    >>> problem.reason, problem.message
    ('guests:out_of_range', 'guests: found 0, expected a whole number from 1 to 64.')
    """

    field: str
    problem: str
    """The word that rejected rows have for it: missing, unparseable, out_of_range, not_allowed, unknown."""
    found: str | None
    """The value, shortened; None if there is none."""
    expected: str
    hint: str = ""
    """The closest value that would have been right."""

    @property
    def reason(self) -> str:
        """As rejected rows name it: `field:problem`."""
        return f"{self.field}:{self.problem}"

    @property
    def message(self) -> str:
        """One or two sentences for people."""
        found = "it is missing" if self.found is None else f"found {self.found}"
        return f"{self.field}: {found}, expected {self.expected}.{self.hint}"

    def as_json(self) -> dict[str, Any]:
        plain = {key: value for key, value in asdict(self).items() if key != "hint"}
        return {**plain, "reason": self.reason, "message": self.message}


class RequestError(NightpriceError):
    """A response other than 200: its HTTP status, a code for machines, and a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.problems, self.headers = status, code, tuple(problems), dict(headers or {})
        self.reasons = Counter(problem.reason for problem in problems)

    def as_json(self) -> dict[str, Any]:
        problems = {"problems": [problem.as_json() for problem in self.problems]} if self.problems else {}
        return {"code": self.code, "message": str(self), **problems}


class InvalidRecord(RequestError):
    """A record with wrong fields, all of them named."""

    def __init__(self, record: str, problems: Sequence[Problem]) -> None:
        """`record` is what the contract calls one."""
        names = ", ".join(dict.fromkeys(problem.field for problem in problems))
        count = "1 field is wrong" if len(problems) == 1 else f"{len(problems)} fields are wrong"
        super().__init__(422, invalid_code(record), f"{count}: {names}.", problems)


def invalid_code(record: str) -> str:
    """The code of a record with wrong fields.

    >>> invalid_code("flight")
    'invalid_flight'
    """
    return f"invalid_{record}"


def not_ready(reason: str) -> RequestError:
    """No model is loaded yet."""
    return RequestError(503, "not_ready", reason, headers={"Retry-After": "5"})


def overloaded() -> RequestError:
    """More requests are in flight than the options allow."""
    return RequestError(
        503,
        "overloaded",
        "Too many requests at once. Ask again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
