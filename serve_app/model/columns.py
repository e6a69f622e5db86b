"""Many records as columns, read by the same functions as one record, once per distinct value."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serve_app.errors import InvalidRecord, Problem, too_many_values
from serve_app.model.allowance import Allowance
from serve_app.model.record import (
    LIST_OF_TEXTS,
    LIST_WITHIN_LIMIT,
    MAX_FULL_PROBLEMS,
    MAX_LIST_ITEMS,
    MAX_TEXT_CHARACTERS,
    Outcome,
    RecordReader,
    cut,
    describe,
    value_reader,
)
from transforms.contract import MISSING, OUT_OF_RANGE, UNPARSEABLE, Field
from transforms.lift import Indices, Mask, distinct, joined

Column: TypeAlias = pa.Array | pa.ChunkedArray

# Each is read by every rule of its list. Real data has some thousands.
MAX_DISTINCT_ITEMS = 100_000


@dataclass(frozen=True)
class ReadTable:
    """Columns after reading: every row's values, and for each problem the rows that have it."""

    values: pa.Table
    """In the accepted schema without the target; null where a value is missing or wrong."""
    problems: list[tuple[Problem, Mask]]
    """The problem as its first row has it."""

    def wrong(self) -> Mask:
        """Which rows have a problem."""
        bad = np.zeros(len(self.values), np.bool_)
        for _, mask in self.problems:
            bad |= mask
        return bad


# What the values of one column may be; whole numbers beside others become floats.
_ALIKE = [{str}, {bool}, {int}, {float}, {int, float}, {list}]


def columns_of(records: Sequence[Any], reader: RecordReader) -> dict[str, Column] | None:
    """Records as columns; None unless all have known fields only, each with values of one type.

    `read_columns` then reads of each what `RecordReader.read` reads of the record, or finds it wrong.
    """
    if set(map(type, records)) != {dict} or not set().union(*records) <= set(reader.names):
        return None
    columns: dict[str, Column] = {}
    for name in reader.names:
        values = [record.get(name) for record in records]
        types = set(map(type, values)) - {type(None)}
        if not types:
            continue
        if types not in _ALIKE:
            return None
        try:
            columns[name] = pa.array(values, pa.list_(pa.string()) if types == {list} else None)
        except (pa.ArrowException, OverflowError, UnicodeError):  # a number too large, an item that is no text
            return None
        if types == {list} and columns[name].flatten().null_count:
            return None
    return columns


def read_columns(
    columns: Mapping[str, Column], rows: int, reader: RecordReader, allowance: Allowance | None = None
) -> ReadTable:
    """Read columns named as the fields of a record, each with `rows` values.

    Raises InvalidRecord for what is wrong with a column as a whole: unknown, missing though required, of a wrong type;
    RequestError 408 if the allowance has no more time.

    >>> from transforms.encode import Encoder
    >>> from transforms.listings import CONTRACT
    >>> reader = RecordReader(Encoder(CONTRACT, {name: {CONTRACT.example.get(name): 1} for name in CONTRACT.coded}))
    >>> columns = {name: pa.array([value, None]) for name, value in CONTRACT.example.items()}
    >>> [(problem.reason, mask.tolist()) for problem, mask in read_columns(columns, 2, reader).problems][0]
    ('id:missing', [False, True])
    """
    columns = {name: _simplified(column) for name, column in columns.items()}
    check_types({name: column.type for name, column in columns.items()}, reader)
    allowance = allowance or Allowance()
    arrays = {name: _one_array(column) for name, column in columns.items()}
    flags: dict[str, pa.Array] = {}
    row_problems: list[tuple[Problem, Mask]] = []
    for name, fields in reader.lists.items():
        flags_of_list, problems_of_list = _read_list(name, arrays.get(name), fields, rows)
        flags |= flags_of_list
        row_problems += problems_of_list
    values: dict[str, pa.Array] = {}
    for item in reader.inputs:
        allowance.check()
        values[item.name], problems_of_field = _read_column(item, arrays.get(item.name), rows)
        row_problems += problems_of_field
        if item.from_list:
            values[item.name] = pc.coalesce(values[item.name], flags[item.name])
    for name, mask in reader.encoder.unknown(values).items():
        first = values[name][int(mask.argmax())].as_py()
        row_problems.append((reader.unknown_value(name, first), mask))
    schema = reader.contract.accepted_schema(with_target=False)
    return ReadTable(pa.table([values[name] for name in schema.names], schema=schema), row_problems)


def _read_column(item: Field, column: pa.Array | None, rows: int) -> tuple[pa.Array, list[tuple[Problem, Mask]]]:
    if column is None:
        return pa.nulls(rows, item.type), []
    if (numbers := _numbers_in_range(item, column)) is not None:
        return numbers, []
    values, indices = distinct(column)
    outcomes = list(map(value_reader(item), values))
    read = pa.array([value for value, _ in outcomes], item.type).take(pa.array(indices))
    return read, list(_row_problems(item, values, outcomes, indices))


def _numbers_in_range(item: Field, column: pa.Array) -> pa.Array | None:
    """The column in the type of the field if it is clear at a glance that every row has a right number, else None.

    Ids and coordinates are different in every row: to read each by itself would take most of the time.
    """
    is_whole = pa.types.is_integer(column.type)
    fits = is_whole if pa.types.is_integer(item.type) else is_whole or pa.types.is_floating(column.type)
    if not fits or item.is_text or pa.types.is_boolean(item.type) or column.null_count or not len(column):
        return None
    values = column.to_numpy()
    if item.low is None or item.high is None or not ((values >= item.low) & (values <= item.high)).all():
        return None
    try:
        return column.cast(item.type)
    except pa.ArrowInvalid:  # a whole number that a float can't hold
        return None


def _row_problems(
    item: Field, values: list[Any], outcomes: list[Outcome], indices: Indices
) -> Iterator[tuple[Problem, Mask]]:
    for name in sorted({problem for _, problem in outcomes if problem}):
        mask: Mask = np.array([problem == name for _, problem in outcomes])[indices]
        yield describe(item, name, None if name == MISSING else values[indices[mask.argmax()]]), mask


def _read_list(
    name: str, column: pa.Array | None, fields: tuple[Field, ...], rows: int
) -> tuple[dict[str, pa.Array], list[tuple[Problem, Mask]]]:
    """For each field whether any item of a row's list says so, and which lists are too long.

    Each distinct item is looked at once.
    """
    if column is None or column.null_count == rows:
        return {item.name: pa.array(np.zeros(rows, np.bool_)) for item in fields}, []
    items, indices = _distinct_items(column.flatten())
    lengths = column.value_lengths().fill_null(0).to_numpy()
    # Not Arrow's list_parent_indices: it counts items behind a null, which `flatten` leaves out.
    parents = np.repeat(np.arange(rows), lengths)

    def has(says: Callable[[str], bool]) -> Mask:
        matches = np.array([text is not None and says(text) for text in items], np.bool_)
        flag = np.zeros(rows, np.bool_)
        flag[parents[matches[indices]]] = True
        return flag

    too_long = has(lambda text: len(text) > MAX_TEXT_CHARACTERS) | (lengths > MAX_LIST_ITEMS)
    items = [None if text is not None and len(text) > MAX_TEXT_CHARACTERS else text for text in items]
    flags = {item.name: pa.array(has(item.read)) for item in fields}
    if not too_long.any():
        return flags, []
    problem = Problem(name, OUT_OF_RANGE, f"a list of {lengths[too_long.argmax()]}", LIST_WITHIN_LIMIT)
    return flags, [(problem, too_long)]


def _distinct_items(items: pa.Array) -> tuple[list[Any], Indices]:
    encoded = items.dictionary_encode()
    if len(encoded.dictionary) > MAX_DISTINCT_ITEMS:
        raise too_many_values(len(encoded.dictionary), "different items of lists", MAX_DISTINCT_ITEMS)
    return distinct(encoded)


def _simplified(column: Column) -> Column:
    """Decimal numbers as floats, and bytes as the texts that they are, if they are UTF-8."""
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64())
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        with suppress(pa.ArrowInvalid):
            return column.cast(pa.string())
    return column


def _one_array(column: Column) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks > 1 and pa.types.is_dictionary(column.type):
        return joined(column.chunks)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def check_types(types: Mapping[str, pa.DataType], reader: RecordReader) -> None:
    """Raises InvalidRecord for columns that are unknown, missing though required, or of a wrong type."""
    if problems := list(_column_problems(types, reader)):
        raise InvalidRecord(reader.contract.record, problems)


def _column_problems(types: Mapping[str, pa.DataType], reader: RecordReader) -> Iterator[Problem]:
    unknown = [name for name in types if name not in reader.names]
    for at, name in enumerate(unknown):
        yield reader.unknown_field(name, str(types[name]), brief=at >= MAX_FULL_PROBLEMS)
    for item in reader.required:
        if item.name not in types or _is_empty(types[item.name]):
            yield describe(item, MISSING, None)
    for item in reader.inputs:
        if item.name in types and not _fits(item, types[item.name]):
            yield _wrong_type(item.name, types[item.name], f"a column of {item.type}")
    for name in reader.lists:
        if name in types and not _is_list_of_texts(types[name]):
            yield _wrong_type(name, types[name], f"a column of which each value is {LIST_OF_TEXTS}")


def _wrong_type(name: str, type: pa.DataType, expected: str) -> Problem:
    return Problem(name, UNPARSEABLE, cut(f"a column of {type}"), expected)


def _fits(item: Field, type: pa.DataType) -> bool:
    if _is_empty(type):
        return True
    plain = _plain(type)
    if item.is_text:
        return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
    numeric = pa.types.is_integer(plain) or pa.types.is_floating(plain)
    return bool(numeric or (pa.types.is_boolean(item.type) and pa.types.is_boolean(plain)))


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_empty(type: pa.DataType) -> bool:
    """Whether a column of this type holds nothing in any row."""
    return bool(pa.types.is_null(_plain(type)))


def _is_list_of_texts(type: pa.DataType) -> bool:
    if pa.types.is_null(type):
        return True
    if not (pa.types.is_list(type) or pa.types.is_large_list(type)):
        return False
    return bool(pa.types.is_string(type.value_type) or pa.types.is_large_string(type.value_type))
