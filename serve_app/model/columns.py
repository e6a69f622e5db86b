"""Many listings as columns, read by the same functions as one listing, once per distinct value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serve_app.errors import InvalidListing, Problem
from serve_app.model.record import FLAGS, INPUTS, REQUIRED, describe, read_value, unknown_field, unknown_value
from transforms.contract import AMENITIES_COLUMN, FIELDS_BY_NAME, MISSING, UNPARSEABLE, Field, accepted_schema
from transforms.encode import Vocabulary
from transforms.lift import Indices, distinct

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReadTable:
    """Columns after reading: every row's values, and for each problem the rows that have it."""

    values: pa.Table
    """In the accepted schema without price; null where a value is missing or wrong."""
    problems: list[tuple[Problem, Mask]]
    """The problem as its first row has it."""

    def wrong(self) -> Mask:
        """Which rows have a problem."""
        bad = np.zeros(len(self.values), np.bool_)
        for _, mask in self.problems:
            bad |= mask
        return bad


def read_columns(given: Mapping[str, pa.Array | pa.ChunkedArray], rows: int, vocabulary: Vocabulary) -> ReadTable:
    """Read columns named as the fields of a listing, each with `rows` values.

    Raises InvalidListing for what is wrong with a column as a whole: unknown, missing though required, of a wrong type.
    """
    _check(given)
    columns = {name: _whole(column) for name, column in given.items()}
    flags = _amenity_flags(columns.get(AMENITIES_COLUMN), rows)
    read: dict[str, pa.Array] = {}
    problems: list[tuple[Problem, Mask]] = []
    for item in INPUTS:
        column = columns.get(item.name)
        if column is None:
            read[item.name] = pa.nulls(rows, item.type)
        else:
            read[item.name], found = _read_column(item, column)
            problems += found
        if item.of_items:
            read[item.name] = (
                read[item.name].fill_null(False)
                if flags is None
                else pa.compute.coalesce(read[item.name], flags[item.name])
            )
    for name, mask in vocabulary.unknown(read).items():
        first = read[name][int(mask.argmax())].as_py()
        problems.append((unknown_value(name, first, vocabulary), mask))
    schema = accepted_schema(with_price=False)
    return ReadTable(pa.table([read[name] for name in schema.names], schema=schema), problems)


def _read_column(item: Field, column: pa.Array) -> tuple[pa.Array, list[tuple[Problem, Mask]]]:
    values, indices = distinct(column)
    outcomes = [read_value(item, value) for value in values]
    read = pa.array([value for value, _ in outcomes], item.type).take(pa.array(indices))
    return read, list(_problems(item, values, outcomes, indices))


def _problems(item: Field, values: list[Any], outcomes: list[Any], indices: Indices) -> Iterator[tuple[Problem, Mask]]:
    for name in sorted({problem for _, problem in outcomes if problem}):
        mask: Mask = np.array([problem == name for _, problem in outcomes])[indices]
        yield describe(item, name, None if name == MISSING else values[indices[mask.argmax()]]), mask


def _amenity_flags(column: pa.Array | None, rows: int) -> dict[str, pa.Array] | None:
    """For each flag whether any item of a row's list says so: each distinct item is looked at once."""
    if column is None or column.null_count == rows:
        return None
    items, indices = distinct(column.flatten())
    # Not Arrow's list_parent_indices: it counts items behind a null, which `flatten` leaves out.
    parents = np.repeat(np.arange(rows), column.value_lengths().fill_null(0))
    flags = {}
    for item in FLAGS:
        says = np.array([text is not None and bool(item.read(text)) for text in items], np.bool_)
        flag = np.zeros(rows, np.bool_)
        flag[parents[says[indices]]] = True
        flags[item.name] = pa.array(flag)
    return flags


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array. Chunks with dictionaries of their own become plain: Arrow can't unite all that it can read."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks > 1 and pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _check(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> None:
    problems = [
        unknown_field(name, str(column.type))
        for name, column in columns.items()
        if name not in (*NAMES_OF_INPUTS, AMENITIES_COLUMN)
    ]
    problems += [
        describe(item, MISSING, None)
        for item in REQUIRED
        if item.name not in columns or _is_empty(columns[item.name].type)
    ]
    for name, column in columns.items():
        if name == AMENITIES_COLUMN:
            if not (pa.types.is_null(column.type) or _is_list_of_text(column.type)):
                problems.append(Problem(name, UNPARSEABLE, f"a column of {column.type}", "a column of lists of texts"))
        elif name in NAMES_OF_INPUTS and not _fits(FIELDS_BY_NAME[name], column.type):
            problems.append(
                Problem(name, UNPARSEABLE, f"a column of {column.type}", f"a column of {FIELDS_BY_NAME[name].type}")
            )
    if problems:
        raise InvalidListing(problems)


NAMES_OF_INPUTS = {item.name for item in INPUTS}


def _fits(item: Field, type: pa.DataType) -> bool:
    plain = _plain(type)
    if _is_empty(type):
        return True
    if pa.types.is_string(item.type):
        return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
    numeric = pa.types.is_integer(plain) or pa.types.is_floating(plain)
    return bool(numeric or (pa.types.is_boolean(item.type) and pa.types.is_boolean(plain)))


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_empty(type: pa.DataType) -> bool:
    """Whether a column of this type holds nothing in any row."""
    return bool(pa.types.is_null(_plain(type)))


def _is_list_of_text(type: pa.DataType) -> bool:
    if not (pa.types.is_list(type) or pa.types.is_large_list(type)):
        return False
    return bool(pa.types.is_string(type.value_type) or pa.types.is_large_string(type.value_type))
