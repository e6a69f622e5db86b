"""Which amenities of a listing count as which of the eight flags."""

import re
from collections.abc import Iterable

# What a whole item must look like, case aside. The notebook looked for a case-sensitive substring in the text of all
# items, so a "Window AC unit" was not air conditioning and a "KitchenAid oven" was a kitchen.
AMENITIES: dict[str, str] = {
    "tv": r"(.* )?(hd)?tv( with .*)?",
    "internet": r"(.* )?internet( access)?|ethernet( connection)?|((fast|pocket|free) )?wi-?fi( .*)?",
    "air_conditioning": (
        r"((central|portable|window|split) )*air[ -]?condition(ing|er)( .*)?|(window )?a/?c( unit)?|a/?c - .*"
    ),
    "kitchen": r"((full|private|shared|outdoor|small) )*kitchen(ette)?( with .*)?",
    "heating": r"((central|radiant|floor) )*heating( .*)?",
    "wifi": r"((fast|pocket|free) )?wi-?fi( .*)?|wireless internet",
    "elevator": r"elevator( .*)?|lift",
    "breakfast": r"((free|continental|complimentary) )?breakfast( (included|available|provided).*)?",
}
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in AMENITIES.items()}


def is_amenity(item: str, name: str) -> bool:
    """Whether one item counts as the amenity `name`, a key of `AMENITIES`.

    >>> is_amenity('55" HDTV with Netflix', "tv"), is_amenity("KitchenAid oven", "kitchen")
    (True, False)
    """
    return _PATTERNS[name].fullmatch(item.strip()) is not None


def has_amenity(amenities: Iterable[str], name: str) -> bool:
    """Whether any item of a list counts as the amenity `name`.

    >>> has_amenity(["Hangers", "Window AC unit"], "air_conditioning")
    True
    """
    return any(is_amenity(item, name) for item in amenities)
