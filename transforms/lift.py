"""From a function of one value to a function of a column, without a second copy of the rule.

A column is dictionary-encoded, the function is called once per DISTINCT value, and the results are taken
back to the rows. So batch runs at column speed and can never disagree with the single-value path.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

CACHED_ITEMS = 1 << 16

Indices = npt.NDArray[np.int64]


def distinct(column: pa.Array | pa.ChunkedArray) -> tuple[list[Any], Indices]:
    """The distinct values of a column, null among them, and each row's index into them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    values: list[Any] = array.dictionary.to_pylist()
    codes = array.indices
    if codes.null_count:
        codes = (
            codes.fill_null(pa.scalar(len(values), codes.type))
            if _fits(codes, len(values))
            else _widened(codes, len(values))
        )
        values.append(None)
    return values, codes.to_numpy(zero_copy_only=False)


def _fits(codes: pa.Array, value: int) -> bool:
    return bool(value <= np.iinfo(codes.type.to_pandas_dtype()).max)


def _widened(codes: pa.Array, value: int) -> pa.Array:
    return codes.cast(pa.int64()).fill_null(value)


def lift(function: Callable[[Any], Any], type: pa.DataType) -> Callable[[pa.Array | pa.ChunkedArray], pa.Array]:
    """`function` of one value as a function of a column, with results of the Arrow type `type`.

    Null goes to `function` as None, once.

    >>> lift(lambda text: len(text or ""), pa.int8())(pa.array(["a", "bcd", None, "a"])).to_pylist()
    [1, 3, 0, 1]
    """

    def lifted(column: pa.Array | pa.ChunkedArray) -> pa.Array:
        values, indices = distinct(column)
        return pa.array([function(value) for value in values], type).take(pa.array(indices))

    return lifted


def lift_any(
    functions: Sequence[Callable[[str], bool]], parse: Callable[[str], list[str]]
) -> Callable[[pa.Array | pa.ChunkedArray], tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """For a column of JSON lists as text: whether any item of a row satisfies each function.

    Splits the texts into items at column speed and calls each function once per distinct item. `parse`
    reads the whole list of one text (ValueError if it can't); it decodes the items, and it alone decides
    about every text that is not printed as `["…", "…"]`.

    Returns, for n rows and m functions, an array [n, m] (all False where a text is missing or unreadable)
    and an array [n] that marks the unreadable ones.
    """
    if len(functions) > 30:
        raise ValueError("at most 30 functions fit beside the two structure bits")
    opens, closes, broken = 1 << 30, 1 << 31, 1 << 29

    def bits(item: str) -> int:
        return sum(1 << i for i, function in enumerate(functions) if function(item))

    # Blocks share most of their items: a block of 60,000 listings has about 3,000 distinct ones.
    @lru_cache(maxsize=CACHED_ITEMS)
    def fragment_bits(fragment: str) -> int:
        """What one piece between `", "` says; the first and the last still carry their brackets."""
        first = fragment.startswith('["')
        # The quote that opens is not the one that closes: `["]` is no list.
        last = fragment.endswith('"]', 2 if first else 0)
        body = fragment[2 if first else 0 : -2 if last else None]
        try:
            (item,) = parse(f'["{body}"]')
        except ValueError:
            return broken
        return bits(item) | first * opens | last * closes

    def row_bits(text: str | None) -> int:
        if text is None or not text.strip():
            return 0
        try:
            items = parse(text)
        except ValueError:
            return broken
        return sum(1 << i for i in range(len(functions)) if any(bits(item) >> i & 1 for item in items))

    def lifted(column: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_dictionary(array.type):
            values, indices = distinct(array)
            of_values, unreadable = lifted(pa.array(values, pa.string()))
            return of_values[indices], unreadable[indices]
        rows = len(array)
        result = np.zeros(rows, np.uint32)
        lists = pa.compute.split_pattern(array, '", "')
        fragments = lists.flatten()
        if len(fragments):
            values, indices = distinct(fragments)
            per_fragment = np.array([fragment_bits(value) for value in values], np.uint32)[indices]
            lengths = pa.compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
            filled = np.flatnonzero(lengths)
            starts = (np.cumsum(lengths) - lengths)[filled]
            ends = starts + lengths[filled] - 1
            joined = np.bitwise_or.reduceat(per_fragment, starts)
            # Exactly one opening bracket, at the start, and one closing, at the end: else the text is
            # printed otherwise.
            regular = (
                (joined & broken == 0)
                & (per_fragment[starts] & opens != 0)
                & (per_fragment[ends] & closes != 0)
                & (np.add.reduceat((per_fragment & opens != 0).astype(np.int32), starts) == 1)
                & (np.add.reduceat((per_fragment & closes != 0).astype(np.int32), starts) == 1)
            )
            result[filled] = joined & (broken - 1)
            odd = filled[~regular]
            if len(odd):
                result[odd] = lift(row_bits, pa.uint32())(array.take(pa.array(odd))).to_numpy(zero_copy_only=False)
        flags = (result[:, None] >> np.arange(len(functions), dtype=np.uint32)) & 1
        return flags.astype(np.bool_), result & broken != 0

    return lifted
