"""Which amenities of a listing count as which of the eight flags."""

import re
from collections.abc import Iterable

from transforms.readers import list_of_texts

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
    text = item.strip()
    # No pattern matches over several lines; to try costs the square of the length.
    return "\n" not in text and _PATTERNS[name].fullmatch(text) is not None


def has_amenity(amenities: Iterable[str], name: str) -> bool:
    """Whether any item of a list counts as the amenity `name`.

    >>> has_amenity(["Hangers", "Window AC unit"], "air_conditioning")
    True
    """
    return any(is_amenity(item, name) for item in amenities)


def amenity_list(raw: str) -> list[str]:
    """The items of a list of amenities: as JSON, PostgreSQL or Python print it, or bare.

    A bare list is told from prose by what it holds: an amenity that counts, or several items without blanks between
    them.

    >>> amenity_list("TV,Wireless Internet,Kitchen")
    ['TV', 'Wireless Internet', 'Kitchen']
    >>> amenity_list("see text")
    Traceback (most recent call last):
    ValueError: 'see text' is not a list of amenities
    """
    try:
        return list_of_texts(raw)
    except ValueError:
        pass
    bare = raw.strip()
    if bare[:1] + bare[-1:] in ("[]", "{}", "()"):
        bare = bare[1:-1]
    items = _bare_items(bare)
    if not items or _is_prose(bare, items):
        raise ValueError(f"{raw[:60]!r} is not a list of amenities")
    return items


def _bare_items(bare: str) -> list[str]:
    if not re.search(r'["\[\]{}]', bare):
        return [item.strip() for item in bare.split(next((mark for mark in "|;" if mark in bare), ","))]
    try:
        return list_of_texts(f"{{{bare}}}")
    except ValueError:
        return []


def _is_prose(bare: str, items: list[str]) -> bool:
    if any(is_amenity(item, name) for item in items for name in AMENITIES):
        # A sentence has one capital letter, at its start, or ends with a mark.
        return bare.endswith((".", "!", "?")) or len({item[:1].islower() for item in items}) > 1
    return len(items) < 2 or re.search(r"[|;,]\s", bare) is not None
