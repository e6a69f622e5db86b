"""What the deployment puts around the application."""

import asyncio
from typing import Any

from serve_app.app import seen_by_autoscaling


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


async def _nothing(*_: Any) -> Any:
    raise AssertionError
