"""How one raw text of a flight is read."""

import re
from datetime import datetime, timedelta

# Summer time adds an hour, and no flight is scheduled between 23:59 and 01:00: the date is right all year.
_NEW_YORK = timedelta(hours=-5)
_CLOCK = re.compile(r"([0-9]{1,2}?)([0-5][0-9])", re.ASCII)


def minutes(raw: str) -> int:
    """A time of day, printed as a number without its leading zeros, in minutes after midnight.

    >>> minutes("1425"), minutes("517"), minutes("5"), minutes("2400")
    (865, 317, 5, 1440)
    """
    match = _CLOCK.fullmatch(raw.strip().zfill(3))
    if match is None:
        raise ValueError(f"{raw!r} is not a time of day such as 517 or 1425")
    return int(match[1]) * 60 + int(match[2])


def weekday(raw: str) -> int:
    """The day of the week in New York, Monday being 1, of an hour in UTC.

    >>> weekday("2013-01-01T10:00:00Z"), weekday("2013-01-02T04:00:00Z")
    (2, 2)
    """
    return (datetime.strptime(raw.strip(), "%Y-%m-%dT%H:%M:%SZ") + _NEW_YORK).isoweekday()
