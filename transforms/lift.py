"""From a function of one value to a function of a column, without a second copy of the rule.

A column is dictionary-encoded, the function is called once per DISTINCT value, and the results are taken
back to the rows. So batch runs at column speed and can never disagree with the single-value path.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nightprice.errors import ContractError

CACHED_ITEMS = 1 << 16

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint64]


def distinct(column: pa.Array | pa.ChunkedArray) -> tuple[list[Any], Indices]:
    """The distinct values of a column, null among them, and each row's index into them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    array = in_use(array)
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


def in_use(array: pa.DictionaryArray) -> pa.DictionaryArray:
    """The same rows; of a dictionary with more entries than rows, those that no row uses are left out.

    >>> in_use(pa.DictionaryArray.from_arrays([2], ["a", "b", "c"])).dictionary.to_pylist()
    ['c']
    """
    if len(array.dictionary) <= len(array):
        return array
    used, codes = np.unique(array.indices.fill_null(0).to_numpy(), return_inverse=True)
    indices = pa.array(codes, mask=array.indices.is_null().to_numpy(zero_copy_only=False))
    return pa.DictionaryArray.from_arrays(indices, array.dictionary.take(pa.array(used)))


def joined(chunks: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """Chunks with dictionaries of their own as one, in which a value may occur several times.

    Arrow's own ways unite not all that it can read, or write each value out row by row.

    >>> joined([pa.array(["a"]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]).to_pylist()
    ['a', 'b', 'a']
    """
    parts = list(map(in_use, chunks))
    starts = np.cumsum([0, *(len(part.dictionary) for part in parts)])
    indices = [pc.add(part.indices.cast(pa.int64()), int(start)) for part, start in zip(parts, starts, strict=False)]
    return pa.DictionaryArray.from_arrays(
        pa.concat_arrays(indices), pa.concat_arrays([part.dictionary for part in parts])
    )


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

    def apply(column: pa.Array | pa.ChunkedArray) -> pa.Array:
        values, indices = distinct(column)
        return pa.array([function(value) for value in values], type).take(pa.array(indices))

    return apply


# Bits of one item or row: one for each function, then what is known of the text itself.
MOST_FUNCTIONS = 61
_BROKEN, _OPENS, _CLOSES = (1 << MOST_FUNCTIONS + position for position in range(3))
_SEPARATOR = '", "'


class ListMatcher:
    """For a column of lists as text: whether any item of a row satisfies each of some functions.

    Splits the texts into items at column speed and calls each function once per distinct item. `parse` reads the whole
    list of one text (ValueError if it can't); it decodes the items, and it alone decides about every text that is not
    printed as `["…", "…"]`.

    >>> import json
    >>> matcher = ListMatcher([str.isupper, str.islower], json.loads)
    >>> flags, unreadable = matcher(pa.array(['["A", "b"]', "nothing", None]))
    >>> flags.tolist(), unreadable.tolist()
    ([[True, True], [False, False], [False, False]], [False, True, False])
    """

    def __init__(self, functions: Sequence[Callable[[str], bool]], parse: Callable[[str], list[str]]) -> None:
        """Raises ContractError for more than 61 functions."""
        if len(functions) > MOST_FUNCTIONS:
            raise ContractError(
                f"{len(functions)} fields are read from one list; at most {MOST_FUNCTIONS} are possible."
            )
        self._functions, self._parse = functions, parse
        # Blocks share most of their items: of 60,000 rows with 20 items each, about 3,000 are distinct.
        self._bits_of_fragment = lru_cache(maxsize=CACHED_ITEMS)(self._read_fragment)
        self._bits_of_item = lru_cache(maxsize=CACHED_ITEMS)(self._read_item)

    def __call__(self, column: pa.Array | pa.ChunkedArray) -> tuple[Mask, Mask]:
        """For n rows and m functions an array [n, m] (False where a text is missing or can't be read), and an array [n]
        that marks the texts that can't be read."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_dictionary(array.type):
            values, indices = distinct(array)
            flags, unreadable = self(pa.array(values, pa.string()))
            return flags[indices], unreadable[indices]
        bits = self._bits_of_rows(array)
        numbers = (bits[:, None] >> np.arange(len(self._functions), dtype=np.uint64)) & np.uint64(1)
        return numbers.astype(np.bool_), bits & np.uint64(_BROKEN) != 0

    def _bits_of_rows(self, array: pa.Array) -> Bits:
        rows = np.zeros(len(array), np.uint64)
        lists = pc.split_pattern(array, _SEPARATOR)
        values, indices = distinct(lists.flatten())
        if not len(indices):
            return rows
        fragments = np.array([self._bits_of_fragment(value) for value in values], np.uint64)[indices]
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        filled = np.flatnonzero(lengths)
        starts = (np.cumsum(lengths) - lengths)[filled]
        rows[filled] = np.bitwise_or.reduceat(fragments, starts)
        regular = _are_regular(fragments, starts, starts + lengths[filled] - 1)
        rows &= np.uint64(_BROKEN - 1)
        irregular = filled[~regular]
        if len(irregular):
            texts = array.take(pa.array(irregular))
            rows[irregular] = lift(self._read_row, pa.uint64())(texts).to_numpy(zero_copy_only=False)
        return rows

    def _read_fragment(self, fragment: str) -> int:
        """What one piece between separators says; the first and the last still carry their brackets."""
        opens = fragment.startswith('["')
        # The quote that opens is not the one that closes: `["]` is not a list.
        closes = fragment.endswith('"]', 2 if opens else 0)
        body = fragment[2 if opens else 0 : -2 if closes else None]
        try:
            (item,) = self._parse(f'["{body}"]')
        except ValueError:
            return _BROKEN
        return self._read_item(item) | opens * _OPENS | closes * _CLOSES

    def _read_row(self, text: str | None) -> int:
        if text is None or not text.strip():
            return 0
        try:
            items = self._parse(text)
        except ValueError:
            return _BROKEN
        return reduce(or_, map(self._bits_of_item, items), 0)

    def _read_item(self, item: str) -> int:
        return sum(1 << position for position, function in enumerate(self._functions) if function(item))


def _are_regular(fragments: Bits, starts: Indices, ends: Indices) -> Mask:
    """Which lists have exactly one opening bracket, at the start, and one closing, at the end, and no broken piece."""
    opens, closes = fragments & np.uint64(_OPENS) != 0, fragments & np.uint64(_CLOSES) != 0
    broken = np.bitwise_or.reduceat(fragments, starts) & np.uint64(_BROKEN) != 0
    one_opens = np.add.reduceat(opens.astype(np.int32), starts) == 1
    one_closes = np.add.reduceat(closes.astype(np.int32), starts) == 1
    result: Mask = ~broken & opens[starts] & closes[ends] & one_opens & one_closes
    return result
