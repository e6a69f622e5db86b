"""How many replicas the load asks for.

Ray's controller runs `replicas_for` where this project may not be installed: it stands on the standard library alone.
"""

from typing import Any

REQUESTS_IN_HAND = "requests_in_hand"
"""What a replica reports: how many requests it had in hand, on average."""
POLICY = f"{__name__}:replicas_for"
# The load of so many seconds counts: long enough for a mean, short enough to follow a step within some seconds.
LOOK_BACK_S = 5.0


def replicas_for(context: Any) -> tuple[float, dict[str, Any]]:
    """The policy, as Ray calls it; Ray applies bounds and delays. Without any report the number stays as it is.

    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(target_ongoing_requests=2.0)
    >>> loads = {"first": 4.0, "second": 1.0}
    >>> replicas_for(SimpleNamespace(aggregated_metrics={REQUESTS_IN_HAND: loads}, config=config))
    (2.5, {})
    """
    loads = (context.aggregated_metrics or {}).get(REQUESTS_IN_HAND)
    if not loads:
        return context.target_num_replicas, {}
    return sum(loads.values()) / context.config.target_ongoing_requests, {}
