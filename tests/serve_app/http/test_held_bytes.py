"""What a replica holds."""

from serve_app.http.held_bytes import LARGE_BYTES, HeldBytes, Hold


def test_memory_is_given_back_once_many_bytes_are_held_no_more() -> None:
    times: list[int] = []
    held = HeldBytes(4 * LARGE_BYTES, lambda: times.append(held.total))
    first, second = Hold(held), Hold(held)

    first.set(LARGE_BYTES)
    first.set(0)
    assert times == []
    first.set(LARGE_BYTES)
    second.set(1)
    first.set(0)
    assert times == []
    second.set(0)
    assert times == [0]
    first.set(1)
    first.set(0)
    assert times == [0]
