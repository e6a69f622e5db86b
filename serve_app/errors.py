"""What a caller is told when a request can't be answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @property
    def size(self) -> int:
        """Bytes of its JSON, at least about: each of its texts occurs there up to three times."""
        return 64 + 3 * len(self.message.encode(errors="replace"))

    @property
    def size_in_columns(self) -> int:
        """Bytes of its reason in a column of lists."""
        return 8 + len(self.reason.encode(errors="replace"))

    def as_json(self) -> dict[str, Any]:
        return {
            "field": self.field,
            "problem": self.problem,
            "found": self.found,
            "expected": self.expected,
            "reason": self.reason,
            "message": self.message,
        }


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


def timed_out(seconds: float) -> RequestError:
    """The work on a request took too long."""
    return RequestError(408, "timed_out", f"The answer took longer than {seconds:g} s. Send fewer records at once.")


def too_many_problems(limit: int) -> RequestError:
    """The problems of a request would fill an answer that is larger than allowed."""
    return RequestError(
        413,
        "too_many_problems",
        f"The problems fill more than {limit:,} bytes. Send fewer records at once.",
    )


def too_many_values(found: int, what: str, limit: int) -> RequestError:
    """A request that stands for more work than allowed, however small it is."""
    return RequestError(413, "too_many_values", f"{found:,} {what} in one request, at most {limit:,} are allowed.")


def overloaded() -> RequestError:
    """More requests are in flight, or more bytes of them are held, than the options allow."""
    return RequestError(
        503,
        "overloaded",
        "Too many requests at once. Ask again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
