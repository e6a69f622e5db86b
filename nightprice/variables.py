"""Variables of the environment that nobody reads: pydantic-settings ignores them, so a typing error would silently
change nothing.
"""

import os
from collections.abc import Collection

from nightprice.errors import closest


def unread_variable(prefix: str, known: Collection[str], others: tuple[str, ...] = ()) -> str | None:
    """The beginning of an error, or None: the first variable under a prefix that is neither `known` nor begins as one
    of `others`.

    >>> os.environ["EXAMPLE_PROT"] = "1"
    >>> unread_variable("EXAMPLE_", ["EXAMPLE_PORT"])
    'There is no setting for the variable EXAMPLE_PROT. Did you mean "EXAMPLE_PORT"?'
    >>> unread_variable("EXAMPLE_", ["EXAMPLE_PORT"], others=("EXAMPLE_PR",))
    >>> del os.environ["EXAMPLE_PROT"]
    """
    for name in os.environ:
        upper = name.upper()
        if upper.startswith(prefix) and upper not in known and not upper.startswith(others):
            return f"There is no setting for the variable {name}.{closest(upper, known)}"
    return None
