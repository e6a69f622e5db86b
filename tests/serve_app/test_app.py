"""What the deployment puts around the application."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.app import Prediction, seen_by_autoscaling
from serve_app.http.middleware import Shortcut
from serve_app.metrics import NoMetrics
from serve_app.model.reloader import Follower
from serve_app.options import ServeOptions


def test_requests_that_wait_are_counted_before_the_first_is_worked_on() -> None:
    in_hand, seen = 0, list[int]()

    async def api(*_: Any) -> None:
        seen.append(in_hand)

    application = seen_by_autoscaling(api)

    async def counted_by_ray() -> None:
        nonlocal in_hand
        in_hand += 1
        await application({}, _nothing, _nothing)
        in_hand -= 1

    async def five_at_once() -> None:
        await asyncio.gather(*(counted_by_ray() for _ in range(5)))

    asyncio.run(five_at_once())

    assert seen[0] == 5


@pytest.mark.parametrize(("most", "takes_it"), [(1, True), (2, False)])
def test_only_replicas_that_do_not_scale_take_the_shortcut(
    most: int, takes_it: bool, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shortcut, "app", None)
    replica: Any = SimpleNamespace(_follower=follower, _options=ServeOptions(max_replicas=most), _metrics=NoMetrics())

    Prediction.__serve_build_asgi_app__(replica)

    assert (Shortcut.app is not None) == takes_it


async def _nothing(*_: Any) -> Any:
    raise AssertionError
