"""A function of one value, lifted to a column."""

import json
from functools import partial
from operator import eq

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightprice.errors import ContractError
from transforms.lift import ListMatcher, lift
from transforms.readers import list_of_texts


def test_the_function_is_called_once_per_distinct_value() -> None:
    calls: list[str | None] = []

    def length(text: str | None) -> int:
        calls.append(text)
        return len(text or "")

    lifted = lift(length, pa.int64())(pa.chunked_array([["a", "bb", None], ["bb", "a"]]))

    assert lifted.to_pylist() == [1, 2, 0, 2, 1]
    assert sorted(calls, key=str) == [None, "a", "bb"]


def test_more_distinct_values_than_a_small_index_holds() -> None:
    encoded = pa.DictionaryArray.from_arrays(
        pa.array([*range(127), None], pa.int8()), pa.array([str(i) for i in range(127)])
    )

    assert lift(lambda text: -1 if text is None else int(text), pa.int64())(encoded).to_pylist() == [*range(127), -1]


starts_with_a = ListMatcher([lambda item: item.startswith("a"), lambda item: "b" in item], list_of_texts)
items = st.lists(st.text(alphabet=st.sampled_from('ab,"[] \\é\n'), max_size=6), max_size=4)


def by_hand(text: str | None) -> tuple[list[bool], bool]:
    if text is None or not text.strip():
        return [False, False], False
    try:
        parsed = list_of_texts(text)
    except ValueError:
        return [False, False], True
    return [any(item.startswith("a") for item in parsed), any("b" in item for item in parsed)], False


def check(texts: list[str | None]) -> None:
    flags, unreadable = starts_with_a(pa.array(texts, pa.string()))
    assert [(row, bad) for row, bad in zip(flags.tolist(), unreadable.tolist(), strict=True)] == [
        by_hand(text) for text in texts
    ]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), items.map(json.dumps), items.map(lambda value: json.dumps(value, separators=(",", ":"))))
    )
)
def test_lists_are_read_as_one_by_one(texts: list[str | None]) -> None:
    check(texts)


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.sampled_from('ab,"[] \\'), max_size=12)))
def test_texts_that_are_no_lists_are_read_as_one_by_one(texts: list[str | None]) -> None:
    check(texts)


@pytest.mark.parametrize(
    "text",
    [
        '["a", "b"',
        'x["a"]',
        '["a", ["b"]',
        '["a\\"]',
        '["a"] ',
        ' ["a", "b"]',
        '["a"], "b"]',
        '["\\"]", "b"]',
        '["a"]", "b"]',
        '["]',
        '["a", "\\q", "b"]',
    ],
)
def test_odd_brackets_and_escapes(text: str) -> None:
    check([text, '["a"]', None])


def test_sliced_and_empty_columns() -> None:
    column = pa.array(['["x"]', '["a"]', '["b"]'])

    assert starts_with_a(column.slice(1, 2))[0].tolist() == [[True, False], [False, True]]
    assert starts_with_a(column.slice(0, 0))[0].shape == (0, 2)


def test_the_last_of_as_many_functions_as_fit_is_told_from_a_broken_text() -> None:
    matcher = ListMatcher([partial(eq, str(number)) for number in range(61)], list_of_texts)

    flags, unreadable = matcher(pa.array(['["60"]', '["0"', "[]"]))

    assert [row.nonzero()[0].tolist() for row in flags] == [[60], [], []]
    assert unreadable.tolist() == [False, True, False]


def test_more_functions_than_fit_are_refused() -> None:
    with pytest.raises(ContractError, match="62 fields are read from one list; at most 61"):
        ListMatcher([str.isupper] * 62, list_of_texts)
