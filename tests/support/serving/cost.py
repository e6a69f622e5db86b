"""What work costs in memory."""

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")
# Arrays may outlive the measurement, and do not keep the pool that they came from.
_POOLS: list[pa.MemoryPool] = []


def with_peak(work: Callable[[], T]) -> tuple[T, int]:
    """The result of some work, and how many bytes of Python, numpy and Arrow it held at most at once, about."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
