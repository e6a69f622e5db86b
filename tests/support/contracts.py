"""The contracts over which tests run whose meaning belongs to no problem: a number in bands, and classes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from examples.flights import CONTRACT as FLIGHT_DELAY
from examples.flights import OUTCOMES
from tests.support.raw_flights import flight, flights
from tests.support.raw_listings import LISTING, listing
from transforms.contract import Contract
from transforms.listings import CONTRACT as LISTING_PRICE


@dataclass(frozen=True)
class Example:
    """A contract and what its raw rows look like."""

    contract: Contract
    good: Mapping[str, str | None]
    """A raw row in which nothing is wrong."""
    texts: Mapping[str, tuple[str, ...]]
    """By raw column, texts that are likely there, right and wrong ones."""
    rows: Callable[[int], list[dict[str, str | None]]]
    """So many raw rows with keys of their own; some may be rejected."""

    def __str__(self) -> str:
        return self.contract.name

    def table(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Raw rows as a table of text."""
        listed = list(rows)
        columns = self.contract.raw_columns
        return pa.table({name: pa.array([row.get(name) for row in listed], pa.string()) for name in columns})


LISTINGS = Example(
    LISTING_PRICE,
    LISTING,
    {
        "id": ("1", str(2**63 - 1), str(2**63), "1.5", "-1"),
        "neighbourhood_group_cleansed": ("Bronx", " Queens "),
        "neighbourhood_cleansed": ("Harlem",),
        "room_type": ("Private room", "Entire home/apt", "Hotel room ", "Castle"),
        "property_type": ("Entire loft", "Tiny house"),
        "accommodates": ("1", "64", "65", "-1", "2.0"),
        "bathrooms_text": ("1 bath", "Half-bath", "1.5 shared baths", "99 baths"),
        "bathrooms": ("0.1", "59.3"),
        "bedrooms": ("0.1", "7", "59.3", "-1"),
        "beds": ("0", "100", "101"),
        "latitude": ("40.68494", "-0.0", "91", "-90"),
        "longitude": ("-73.95765", "181"),
        "amenities": ('["TV", "Wifi"]', "[]", '["Window AC unit"]', '["TV"', "TV", '{Wifi,"Cable TV"}', "see text"),
        "price": ("$75.00", "$1,234.00", "$9.99", "€12,50", "ask"),
    },
    lambda rows: [listing(number) for number in range(rows)],
)

_FLIGHT_TEXTS = {
    "year": ("2013",),
    "month": ("1", "12", "13", " 2 "),
    "day": ("1", "31"),
    "carrier": ("UA", " DL ", "B6"),
    "flight": ("1545", "NA"),
    "origin": ("EWR", "JFK ", "BOS"),
    "time_hour": ("2013-01-01T10:00:00Z", "2013-07-09T03:00:00Z", "2013-01-01"),
    "sched_dep_time": ("5", "517", "1425", "1360", "2400", "NA"),
    "sched_arr_time": ("819", "60", "NA"),
    "dest": ("IAH", "LEX"),
    "distance": ("1400", "17.3", "-1", "10001"),
}
FLIGHTS = Example(
    FLIGHT_DELAY, flight(), {**_FLIGHT_TEXTS, "arr_delay": ("-15", "15", "16", "61", "NA", "99999")}, flights
)
FLIGHT_OUTCOMES = Example(
    OUTCOMES, flight(), {**_FLIGHT_TEXTS, "outcome": ("On time", "Late ", "No arrival", "Lost")}, flights
)

ALL = (LISTINGS, FLIGHTS, FLIGHT_OUTCOMES)
