"""How late will a flight from New York arrive? What is known before it leaves: schedule, carrier, route.

Two contracts for the same flights: `CONTRACT` divides the delay in minutes into bands, `OUTCOMES` predicts a text.
"""

from dataclasses import replace

import pyarrow as pa

from examples.flights.rules import minutes, weekday
from transforms.contract import RANKED_WITH_RARE, Bands, Classes, Contract, Field, composite_key
from transforms.readers import integer, number, text

AIRPORTS = ("EWR", "JFK", "LGA")

INPUTS = (
    # The data has no column of ids; these six values name a flight.
    composite_key("id", ("year", "month", "day", "carrier", "flight", "origin"), "The flight, from its date and name."),
    Field("month", ("month",), integer, pa.int16(), "Month of departure.", low=1, high=12, required=True),
    Field(
        "weekday", ("time_hour",), weekday, pa.int16(), "Day of the week, Monday being 1.", low=1, high=7, required=True
    ),
    Field(
        "departure",
        ("sched_dep_time",),
        minutes,
        pa.int16(),
        "Scheduled departure, in minutes after midnight.",
        low=0,
        high=1440,
        required=True,
    ),
    Field(
        "arrival",
        ("sched_arr_time",),
        minutes,
        pa.int16(),
        "Scheduled arrival, in minutes after midnight, local time.",
        low=0,
        high=1440,
    ),
    Field("carrier", ("carrier",), text, pa.string(), "Two letters of the airline.", required=True),
    Field("origin", ("origin",), text, pa.string(), "Airport of departure.", allowed=AIRPORTS, required=True),
    # A destination that the model has not seen is missing to it, not an error.
    Field("destination", ("dest",), text, pa.string(), "Airport of arrival.", required=True, encoding=RANKED_WITH_RARE),
    Field("distance", ("distance",), number, pa.float32(), "Miles to fly.", low=0, high=10_000, required=True),
)

CONTRACT = Contract(
    name="flight-delay",
    version=1,
    record="flight",
    records="flights",
    fields=(
        *INPUTS,
        Field(
            "arr_delay",
            ("arr_delay",),
            integer,
            pa.int16(),
            "Minutes between scheduled and actual arrival, negative if early.",
            low=-1440,
            high=2880,
            required=True,
        ),
    ),
    key="id",
    target="arr_delay",
    # The United States' Department of Transportation counts a flight as on time up to 15 minutes.
    label=Bands(bins=(-15, 15, 60), labels=("Early", "On time", "Late", "Very late")),
    label_column="punctuality",
    baseline=("month", "departure", "carrier", "origin"),
    breakdown=("carrier", "origin"),
    example={
        "month": 12,
        "weekday": 5,
        "departure": 1145,
        "arrival": 1360,
        "carrier": "EV",
        "origin": "EWR",
        "destination": "ORD",
        "distance": 719,
    },
)

OUTCOMES = replace(
    CONTRACT,
    name="flight-outcome",
    fields=(
        *INPUTS,
        Field("outcome", ("outcome",), text, pa.string(), "What came of the flight; see prepare.py.", required=True),
    ),
    target="outcome",
    label=Classes(("On time", "Late", "No arrival")),
    label_column="",
)
