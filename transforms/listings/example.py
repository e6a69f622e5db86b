"""The listing that examples ask a price of."""

from typing import Any

EXAMPLE: dict[str, Any] = {
    "id": 1001,
    "accommodates": 4,
    "room_type": "Entire home/apt",
    "beds": 2,
    "bedrooms": 1,
    "bathrooms": 2,
    "neighbourhood": "Brooklyn",
    "tv": 1,
    "elevator": 1,
    "internet": 0,
    "latitude": 40.71383,
    "longitude": -73.9658,
}
"""The payload of the challenge that the notebooks answered."""
