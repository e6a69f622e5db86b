"""One record as a caller sends it: typed values, read by a contract into a record or a list of problems."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from nightprice.errors import closest, printable
from serve_app.errors import InvalidRecord, Problem
from transforms.contract import MISSING, OUT_OF_RANGE, UNKNOWN, UNPARSEABLE, Contract, Field
from transforms.encode import Encoder, Matrix, Vocabulary

UNKNOWN_FIELD = "unknown_field"
LIST_OF_TEXTS = "a list of texts"

# Larger whole numbers may have lost digits while they were floats.
MAX_EXACT_INTEGER = 2**53
MAX_SHOWN_CHARACTERS = 80
MAX_SHOWN_ITEMS = 50
# To say what is wrong with a field costs more than to send it: records of very many fields are refused as a whole.
MIN_FIELD_LIMIT = 64
# A text and a list cost work for every character and item; these are ten times what real records have.
MAX_TEXT_CHARACTERS = 1_000
MAX_LIST_ITEMS = 10_000
TEXT_WITHIN_LIMIT = f"a text of at most {MAX_TEXT_CHARACTERS:,} characters"
LIST_WITHIN_LIMIT = f"at most {MAX_LIST_ITEMS:,} texts of at most {MAX_TEXT_CHARACTERS:,} characters"
# The problems of a request beyond these are told in short: to look for the closest word costs more than to read it.
MAX_FULL_PROBLEMS = 20

Outcome = tuple[Any, str | None]
"""A value, or None with its problem."""


def inputs_of(contract: Contract) -> tuple[Field, ...]:
    """The fields that a caller may send.

    A joined key is optional here: its raw columns are not sent, and nothing is computed from it.
    """
    return tuple(replace(item, required=False) if item.joined else item for item in contract.inputs)


def input_names(contract: Contract) -> tuple[str, ...]:
    """The names that a record may have: its fields, then its lists."""
    return (*(item.name for item in contract.inputs), *(column.name for column in contract.lists))


def max_fields(contract: Contract) -> int:
    """How many fields a record may have, right and wrong ones: a larger one is refused as a whole."""
    return max(MIN_FIELD_LIMIT, 2 * len(input_names(contract)))


def known_example(
    contract: Contract, vocabulary: Vocabulary | None = None, rows: Matrix | None = None
) -> dict[str, Any]:
    """The contract's example, with what a model knows in the place of what it does not.

    Its vocabulary says which categories it knows; `rows` float32 [k, features] of its training, which numbers: one
    beyond them, such as the coordinates of another city, becomes their median.

    >>> from transforms.listings import CONTRACT
    >>> [CONTRACT.example[name] for name in CONTRACT.strict]
    ['Brooklyn', 'Entire home/apt']
    >>> example = known_example(CONTRACT, {name: {"known": 1} for name in CONTRACT.strict})
    >>> [example[name] for name in CONTRACT.strict]
    ['known', 'known']
    """
    example = dict(contract.example)
    for name in contract.strict:
        known = (vocabulary or {}).get(name)
        if known and name in example and example[name] not in known:
            example[name] = next(iter(known))
    for name, column in zip(contract.features, () if rows is None else rows.T, strict=rows is not None):
        if name in example and name not in contract.coded and not pa.types.is_boolean(contract.by_name[name].type):
            example[name] = _seen(example[name], column[~np.isnan(column)])
    return example


def _seen(number: float, column: Matrix) -> float:
    """The number, or the median of a column in which it lies beyond all others."""
    if not len(column) or column.min() <= number <= column.max():
        return number
    median = float(np.median(column))
    return round(median) if isinstance(number, int) else round(median, 4)


class RecordReader:
    """Reads records by a contract, for a model that knows certain values.

    >>> from transforms.listings import CONTRACT
    >>> vocabulary = {name: {CONTRACT.example.get(name): 1} for name in CONTRACT.coded}
    >>> reader = RecordReader(Encoder(CONTRACT, vocabulary))
    >>> record = reader.read(dict(CONTRACT.example))
    >>> record[CONTRACT.key], [record[name] for name in CONTRACT.strict]
    (1001, ['Brooklyn', 'Entire home/apt'])
    >>> reader.read({**CONTRACT.example, "made_up": 1})
    Traceback (most recent call last):
    serve_app.errors.InvalidRecord: 1 field is wrong: made_up.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.contract = encoder, encoder.contract
        self.inputs = inputs_of(self.contract)
        self.required = tuple(item for item in self.inputs if item.required)
        self.lists = {column.name: self.contract.list_fields(column.name) for column in self.contract.lists}
        self.names = input_names(self.contract)
        self.max_fields = max_fields(self.contract)
        self._fields_in_words = "one of the fields " + ", ".join(self.names)
        self._readers = {item.name: (value_reader(item), item) for item in self.inputs}
        self._strict = [(name, encoder.vocabulary[name]) for name in self.contract.strict]

    def read(self, value: Any, told: int = 0) -> dict[str, Any]:
        """A JSON value as a record for `Encoder.record`.

        A list, if the contract has any, is a list of texts, from which its fields follow as in batch; a field that is
        sent itself wins. Raises InvalidRecord, which names every wrong field, also a value that the model does not
        know: in short once a request has MAX_FULL_PROBLEMS, of which `told` were in records before this one.
        """
        if not isinstance(value, dict):
            expected = "an object with its fields; several go to /v1/predict/batch"
            raise self._refused(Problem(self.contract.record, UNPARSEABLE, shown(value), expected))
        if len(value) > self.max_fields:
            found = f"{len(value):,} fields"
            raise self._refused(Problem(self.contract.record, OUT_OF_RANGE, found, f"at most {self.max_fields}"))
        record: dict[str, Any] = {}
        problems: list[Callable[[bool], Problem]] = []
        for name, part in value.items():
            if name in self._readers:
                read, item = self._readers[name]
                record[name], problem = read(part)
                if problem:
                    problems.append(partial(describe, item, problem, part))
            elif name not in self.lists:
                problems.append(partial(self.unknown_field, name, part))
        problems += [partial(describe, item, MISSING, None) for item in self.required if item.name not in record]
        for name, known in self._strict:
            text = record.get(name)
            if text is not None and text not in known:
                problems.append(partial(self.unknown_value, name, text))
        for name, fields in self.lists.items():
            problems += _add_list(name, value.get(name), fields, record)
        if problems:
            raise self._refused(*(tell(at >= MAX_FULL_PROBLEMS) for at, tell in enumerate(problems, told)))
        return record

    def unknown_field(self, name: str, value: Any, brief: bool = False) -> Problem:
        """What a caller is told about a field that records do not have."""
        short = cut(printable(cut(name)))
        if brief:
            return Problem(short, UNKNOWN_FIELD, shown(value), "a known field")
        return Problem(short, UNKNOWN_FIELD, shown(value), self._fields_in_words, closest(short, self.names))

    def unknown_value(self, name: str, value: str, brief: bool = False) -> Problem:
        """What a caller is told about a value that the model has not learned."""
        if brief:
            return Problem(name, UNKNOWN, shown(value), "one that the model knows")
        known = self.encoder.vocabulary[name]
        listed = ", ".join(f'"{word}"' for word in list(known)[:MAX_SHOWN_ITEMS])
        hint = closest(value[:MAX_SHOWN_CHARACTERS], known)
        return Problem(name, UNKNOWN, shown(value), f"one that the model knows: {listed}", hint)

    def _refused(self, *problems: Problem) -> InvalidRecord:
        return InvalidRecord(self.contract.record, problems)


def describe(item: Field, problem: str, value: Any, brief: bool = False) -> Problem:
    """What a caller is told about one wrong field."""
    found = None if value is None else shown(value)
    expected = TEXT_WITHIN_LIMIT if item.is_text and problem == OUT_OF_RANGE else item.expected()
    if brief or not item.allowed or not isinstance(value, str):
        return Problem(item.name, problem, found, cut(expected) if brief else expected)
    return Problem(item.name, problem, found, expected, closest(value[:MAX_SHOWN_CHARACTERS], item.allowed))


def shown(value: Any) -> str:
    """A value for a message, as JSON and short.

    >>> shown("Flat"), shown({"a": 1})
    ('"Flat"', 'an object')
    """
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**256:
        return "a number of many digits"
    if isinstance(value, (str, bytes)):
        value = value[: MAX_SHOWN_CHARACTERS + 1]
    is_plain = value is None or isinstance(value, (str, int, float))
    return cut(printable(json.dumps(value, ensure_ascii=False) if is_plain else str(value)))


def cut(text: str) -> str:
    """A text for a message, shortened."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "…"


def _add_list(
    name: str, value: Any, fields: tuple[Field, ...], record: dict[str, Any]
) -> list[Callable[[bool], Problem]]:
    """Set the fields of a list that were not sent themselves; what tells what is wrong with the list."""
    items, problem = read_list(value)
    for item in fields:
        if record.get(item.name) is None:
            record[item.name] = any(map(item.matches, items))
    return [partial(wrong_list, name, problem, value)] if problem else []


def wrong_list(name: str, problem: str, value: Any, brief: bool = False) -> Problem:
    """What a caller is told about a wrong list, which is short anyway."""
    return Problem(name, problem, shown(value), LIST_WITHIN_LIMIT if problem == OUT_OF_RANGE else LIST_OF_TEXTS)


def read_list(value: Any) -> tuple[list[str], str | None]:
    """The texts of a list, none if it is missing, or the problem.

    >>> read_list(["a"]), read_list(None), read_list(["a", 1])
    ((['a'], None), ([], None), ([], 'unparseable'))
    """
    if value is None:
        return [], None
    if isinstance(value, list) and len(value) > MAX_LIST_ITEMS:
        return [], OUT_OF_RANGE
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return [], UNPARSEABLE
    if max(map(len, value), default=0) > MAX_TEXT_CHARACTERS:
        return [], OUT_OF_RANGE
    return value, None


def value_reader(item: Field) -> Callable[[Any], Outcome]:
    """A function that reads one typed value (of JSON, Arrow or a tensor) of a field. None, NaN and blank are missing.

    >>> read = value_reader(Field("guests", ("guests",), int, pa.int16(), "", low=1, high=64, required=True))
    >>> read(4), read("4"), read(65), read(None)
    ((4, None), (None, 'unparseable'), (None, 'out_of_range'), (None, 'missing'))
    """
    if pa.types.is_boolean(item.type):
        return partial(_read_flag, item)
    if item.is_text:
        return partial(_read_text, item)
    return partial(_read_integer if pa.types.is_integer(item.type) else _read_number, item)


def _read_flag(item: Field, value: Any) -> Outcome:
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value), None
    return _unreadable(item, value)


def _read_text(item: Field, value: Any) -> Outcome:
    if not isinstance(value, str):
        return _unreadable(item, value)
    if len(value) > MAX_TEXT_CHARACTERS:
        return None, OUT_OF_RANGE
    return item.read_text(value)


def _read_integer(item: Field, value: Any) -> Outcome:
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_EXACT_INTEGER:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return _unreadable(item, value)
    return _checked(item, value)


def _read_number(item: Field, value: Any) -> Outcome:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:  # noqa: PLR0124 (NaN)
        return _unreadable(item, value)
    number, problem = _checked(item, value)
    if problem:
        return None, problem
    try:
        return float(number), None
    except OverflowError:  # a whole number of more than 308 digits
        return None, UNPARSEABLE


def _unreadable(item: Field, value: Any) -> Outcome:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, MISSING if item.required else None
    return None, UNPARSEABLE


def _checked(item: Field, value: Any) -> Outcome:
    problem = item.problem(value)
    return (None, problem) if problem else (value, None)
