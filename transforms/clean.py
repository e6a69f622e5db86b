"""Raw tables in; accepted rows, rejected rows with their reasons, and warnings out."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightprice.defaults import DEFAULT_MISSING_VALUES
from transforms.contract import (
    JOINER,
    MISSING,
    NO_COLUMN,
    OTHER_COLUMN,
    UNKNOWN,
    UNPARSEABLE,
    Classes,
    Contract,
    Field,
    Label,
)
from transforms.encode import Encoder, Mask
from transforms.lift import ListMatcher, distinct, lift

# What a source adds to the raw columns: where a row comes from, and the text of a line that is not a valid row.
SOURCE_FILE = "source_file"
INVALID_ROW = "invalid_row"
REASONS = "reasons"
INVALID_ROW_REASON = "row:invalid"
NOT_UTF8_REASON = "row:not_utf8"
BLANK_ROW_REASON = "row:blank"
# How sources write the bytes of an invalid row that are not UTF-8.
_ESCAPED_BYTE = r"\\x[89a-f][0-9a-f]"

REASONS_TYPE = pa.list_(pa.string())

Words = frozenset[str]
"""Texts that mean nothing, in the form that `is_blank` compares."""

Marked = list[tuple[str, Mask]]
"""For each `field:problem` the rows that have it."""


@dataclass(frozen=True)
class CleanedTable:
    """A raw table's two parts."""

    accepted: pa.Table
    rejected: pa.Table
    warnings: pa.Array
    """For each accepted row the list of its `field:problem`, null where there is none."""


@lru_cache(maxsize=16)
def rejected_schema(contract: Contract) -> pa.Schema:
    """The schema of rejected rows: every raw column as text, then where the row comes from and its reasons."""
    texts = [pa.field(name, pa.string()) for name in (*contract.raw_columns, INVALID_ROW, SOURCE_FILE)]
    return pa.schema([*texts, pa.field(REASONS, REASONS_TYPE)])


@lru_cache(maxsize=16)
def words_for_nothing(missing_values: Collection[str]) -> Words:
    """The setting `missing_values`, a tuple, as `is_blank` takes it.

    >>> words = words_for_nothing(("NA", "None"))
    >>> is_blank(" none ", words), is_blank("Nan", words), is_blank(" ", words)
    (True, False, True)
    """
    return frozenset(_folded(value) for value in missing_values)


def _folded(text: str) -> str:
    return text.strip().casefold()


def is_blank(text: str | None, words: Words) -> bool:
    """Whether a raw text is missing: null, blank, or a word for nothing."""
    return not text or text.isspace() or _folded(text) in words


def clean(
    raw: pa.Table,
    contract: Contract,
    label: Label | None = None,
    *,
    encoder: Encoder | None = None,
    missing_values: tuple[str, ...] = DEFAULT_MISSING_VALUES,
) -> CleanedTable:
    """Split a raw table by a contract; every row ends in exactly one of the two parts.

    `raw` has columns named as in `contract.raw_columns` (a field without any is blank; an optional one with a warning),
    of text or of what `as_text` turns into text, optionally `source_file` and `invalid_row`. With `label` (the
    contract's, or what settings made of it) the target is required and accepted rows get their label; without, both
    are left out. With `encoder`, values that its model does not know are rejected as `field:unknown`. A text of
    `missing_values`, case aside, is blank.
    """
    words = words_for_nothing(missing_values)
    schema = rejected_schema(contract)
    raw = _texts(raw.select([name for name in schema.names if name in raw.column_names]))
    columns, warned = _read_lists(raw, contract, words)
    problems: Marked = []
    for item in contract.fields:
        if item.from_list or (item.name == contract.target and label is None):
            continue
        checked = label if item.name == contract.target else None
        columns[item.name], masks = _read_column(item, raw, checked, words - _named_by_contract(item, checked))
        if not item.required and item.lacks_column(raw.column_names):
            warned.append((f"{item.name}:{NO_COLUMN}", np.ones(len(raw), np.bool_)))
        for problem, mask in masks.items():
            (warned if item.is_warning(problem) else problems).append((f"{item.name}:{problem}", mask))
    if label is not None and contract.label_column:
        of = label.label_of
        labels = lift(lambda value: None if value is None else of(value), pa.string())(columns[contract.target])
        columns[contract.label_column] = labels
    if encoder is not None:
        problems += [(f"{name}:{UNKNOWN}", mask) for name, mask in encoder.unknown(columns).items()]
    missing_key = next((mask for reason, mask in problems if reason == f"{contract.key}:{MISSING}"), None)
    problems = _with_problems_of_rows(problems, [*_invalid_rows(raw), *_blank_rows(raw, missing_key, words)])
    accepted = contract.accepted_schema(with_target=label is not None)
    table = pa.table([columns[name] for name in accepted.names], schema=accepted)
    return _split(raw, table, problems, warned, schema)


def _named_by_contract(item: Field, label: Label | None) -> Words:
    """What the contract names as a value is not a word for nothing."""
    labels = label.labels if isinstance(label, Classes) else ()
    return frozenset(map(_folded, (*item.allowed, *labels)))


def _read_lists(raw: pa.Table, contract: Contract, words: Words) -> tuple[dict[str, pa.Array], Marked]:
    """The fields that are read from lists, and which rows have a list that can't be read."""
    columns: dict[str, pa.Array] = {}
    warned: Marked = []
    for column in contract.lists:
        if column.name not in raw.column_names:
            warned.append((f"{column.name}:{NO_COLUMN}", np.ones(len(raw), np.bool_)))
            columns |= {item.name: pa.nulls(len(raw), item.type) for item in contract.list_fields(column.name)}
            continue
        functions = tuple(item.matches for item in contract.list_fields(column.name))
        flags, unreadable = _matcher(functions, column.parse, words)(_raw_column(raw, column.name))
        if unreadable.any():
            warned.append((f"{column.name}:{UNPARSEABLE}", unreadable))
        for position, item in enumerate(contract.list_fields(column.name)):
            columns[item.name] = pa.array(flags[:, position], mask=unreadable)
    return columns, warned


@lru_cache(maxsize=16)
def _matcher(
    functions: tuple[Callable[[str], bool], ...], parse: Callable[[str], list[str]], words: Words
) -> ListMatcher:
    """One for each process: it remembers the items that it has seen."""
    return ListMatcher(functions, lambda text: [] if is_blank(text, words) else parse(text))


def _with_problems_of_rows(problems: Marked, of_rows: Marked) -> Marked:
    """The problems; those of rows as a whole stand alone."""
    for _, marked in of_rows:
        problems = [(reason, mask & ~marked) for reason, mask in problems]
    return problems + of_rows


def _invalid_rows(raw: pa.Table) -> Marked:
    if INVALID_ROW not in raw.column_names or raw[INVALID_ROW].null_count == len(raw):
        return []
    invalid = pc.is_valid(raw[INVALID_ROW]).to_numpy()
    escaped = pc.match_substring_regex(raw[INVALID_ROW], _ESCAPED_BYTE).fill_null(False).to_numpy()
    return [(INVALID_ROW_REASON, invalid & ~escaped), (NOT_UTF8_REASON, escaped)]


def _blank_rows(raw: pa.Table, missing_key: Mask | None, words: Words) -> Marked:
    """The rows without any value, such as those of bare commas at the end of a spreadsheet."""
    if missing_key is None or not missing_key.any():
        return []
    blank = missing_key.copy()
    if INVALID_ROW in raw.column_names:
        blank &= pc.is_null(raw[INVALID_ROW]).to_numpy()
    for name in raw.column_names:
        if name not in (INVALID_ROW, SOURCE_FILE) and blank.any():
            blank &= lift(partial(is_blank, words=words), pa.bool_())(raw[name]).to_numpy(zero_copy_only=False)
    return [(BLANK_ROW_REASON, blank)]


def _split(raw: pa.Table, table: pa.Table, problems: Marked, warned: Marked, schema: pa.Schema) -> CleanedTable:
    bad = np.zeros(len(raw), np.bool_)
    for _, mask in problems:
        bad |= mask
    warnings = lists_of_reasons([(reason, mask[~bad]) for reason, mask in warned], len(raw) - int(bad.sum()))
    if not bad.any():
        return CleanedTable(table, schema.empty_table(), warnings)
    rows = np.flatnonzero(bad)
    reasons = lists_of_reasons([(reason, mask[rows]) for reason, mask in problems], len(rows))
    taken = raw.take(pa.array(rows))
    nulls = pa.nulls(len(rows), pa.string())
    texts = [_plain(taken[name]) if name in taken.column_names else nulls for name in schema.names[:-1]]
    return CleanedTable(table.filter(pa.array(~bad)), pa.table([*texts, reasons], schema=schema), warnings)


def lists_of_reasons(marked: Marked, rows: int) -> pa.Array:
    """For each of `rows` rows the list of the texts whose mask marks it, or null."""
    if marked and all(mask.all() for _, mask in marked):
        return pa.array([[text for text, _ in marked]] * rows, REASONS_TYPE)
    lists: dict[int, list[str]] = {}
    for text, mask in marked:
        for row in np.flatnonzero(mask).tolist():
            lists.setdefault(row, []).append(text)
    if not lists:
        return pa.nulls(rows, REASONS_TYPE)
    return pa.array([lists.get(row) for row in range(rows)], REASONS_TYPE)


def _read_column(item: Field, raw: pa.Table, label: Label | None, words: Words) -> tuple[pa.Array, Mapping[str, Mask]]:
    """The values of one field and, for each problem that occurs, the rows that have it; with `label`, of a target."""
    text, from_other = _text_of(item, raw, words)
    texts, indices = distinct(text)
    values, problems = _read_texts(item, texts, words)
    if label is not None:
        problems |= {
            at: problem for at, value in enumerate(values) if value is not None and (problem := label.problem(value))
        }
    masks = {}
    for name in sorted(set(problems.values())):
        marked = np.zeros(len(texts), np.bool_)
        marked[[at for at, problem in problems.items() if problem == name]] = True
        masks[name] = marked[indices]
    return pa.array(values, item.type).take(pa.array(indices)), masks | from_other


def _read_texts(item: Field, texts: list[str | None], words: Words) -> tuple[list[Any], dict[int, str]]:
    """What `item.read_text` says of texts: the values, None where there is none, and the problems by position.

    Most texts of a column with mostly distinct values (ids, coordinates) are good: they cost one call of the rule, and
    one comparison with each bound.
    """
    if _reads_no_word(item, words):
        filled = [text is not None and text != "" and not text.isspace() for text in texts]
    else:
        filled = [not is_blank(text, words) for text in texts]
    positions = range(len(texts)) if all(filled) else list(compress(range(len(texts)), filled))
    missing = item.read_text(None)[1]
    problems = {at: missing for at, is_filled in enumerate(filled) if not is_filled} if missing else {}
    values: list[Any] = []
    unread: set[int] = set()
    remaining: Iterator[Any] = compress(texts, filled)
    while len(values) < len(positions):
        with suppress(Exception):  # `read_text` below meets it again
            values.extend(map(item.read, remaining))
        if len(values) < len(positions):
            # The rule has read those before it.
            at = positions[len(values)]
            value, problem = item.read_text(None if is_blank(texts[at], words) else texts[at])
            if problem:
                problems[at] = problem
            unread.add(len(values))
            values.append(value)
    for at in _doubtful(item, values):
        if at not in unread and (problem := item.problem(values[at])):
            problems[positions[at]], values[at] = problem, None
    if len(values) < len(texts):
        read = iter(values)
        values = [next(read) if is_filled else None for is_filled in filled]
    return values, problems


def _doubtful(item: Field, values: list[Any]) -> list[int]:
    """The positions of values that may be out of range or not allowed."""
    if item.low is None or item.high is None or item.allowed:
        return list(range(len(values)))
    low, high = item.low, item.high
    return [at for at, value in enumerate(values) if value is None or not low <= value <= high]


@lru_cache(maxsize=1024)
def _reads_no_word(item: Field, words: Words) -> bool:
    """Whether a field's rule can read none of the words for nothing: then what it has read was none of them."""
    as_written = {*words, *map(str.upper, words), *map(str.capitalize, words), *DEFAULT_MISSING_VALUES}

    def reads(word: str) -> bool:
        try:
            item.read(word)
        except Exception:  # a rule need not expect a word that means nothing
            return False
        return True

    return not any(map(reads, as_written))


def _text_of(item: Field, raw: pa.Table, words: Words) -> tuple[pa.Array | pa.ChunkedArray, dict[str, Mask]]:
    """A field's text, row by row: the first of its raw columns that is not blank, or all of them joined; and, as
    OTHER_COLUMN, the rows whose text is not from the first one.
    """
    first, *others = [_raw_column(raw, name) for name in item.columns]
    if item.joined:
        trimmed = [_trimmed_or_null(column, words) for column in (first, *others)]
        return pc.binary_join_element_wise(*trimmed, JOINER) if others else trimmed[0], {}
    is_missing = lift(partial(is_blank, words=words), pa.bool_())
    from_other = np.zeros(len(raw), np.bool_)
    for other in others:
        blank = is_missing(first)
        if pc.any(blank).as_py():
            from_other |= pc.and_not(blank, is_missing(other)).to_numpy(zero_copy_only=False)
            first = pc.if_else(blank, _plain(other), _plain(first))
    return first, {OTHER_COLUMN: from_other} if from_other.any() else {}


def _trimmed_or_null(column: pa.Array | pa.ChunkedArray, words: Words) -> pa.Array:
    return lift(lambda text: None if is_blank(text, words) else text.strip(), pa.string())(column)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _raw_column(raw: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    return raw[name] if name in raw.column_names else pa.nulls(len(raw), pa.string())


def _texts(raw: pa.Table) -> pa.Table:
    """The columns as text; rows that are not UTF-8 become invalid rows, as in `decoded`."""
    try:
        return pa.table({name: as_text(raw[name]) for name in raw.column_names})
    except pa.ArrowInvalid:
        about_row = {name: as_text(raw[name]) for name in (INVALID_ROW, SOURCE_FILE) if name in raw.column_names}
        rows = decoded(pa.table({name: _bytes(raw[name]) for name in raw.column_names if name not in about_row}))
        invalid = about_row.pop(INVALID_ROW, rows[INVALID_ROW])
        columns = dict(zip(rows.column_names, rows.columns, strict=True))
        return pa.table({**columns, **about_row, INVALID_ROW: pc.coalesce(invalid, rows[INVALID_ROW])})


def _bytes(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    try:
        return as_text(column).cast(pa.string()).cast(pa.binary())
    except pa.ArrowInvalid:
        return pa.array(column.to_pylist(), pa.binary())


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A stored column as text, plain or dictionary-encoded: numbers digit by digit, lists, structs and maps as JSON.

    Raises ArrowInvalid for bytes that are not UTF-8.
    """
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_dictionary(column.type):
        return column if pa.types.is_string(column.type.value_type) else _dictionary_as_text(column)
    if pa.types.is_nested(column.type):
        values = column.to_pylist()
        texts = [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]
        return pa.chunked_array([texts], pa.string())
    # From 10**15 on Arrow writes a float as a power of ten: an id that may have lost its last digits is rejected.
    return column.cast(pa.string())


def _dictionary_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [
        pa.DictionaryArray.from_arrays(
            chunk.indices, as_text(pa.chunked_array([chunk.dictionary])).combine_chunks().cast(pa.string())
        )
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, pa.dictionary(column.type.index_type, pa.string()))


def decoded(table: pa.Table) -> pa.Table:
    """Binary columns as text; rows that are not UTF-8 become invalid rows with their bytes escaped."""
    try:
        decoded = pa.table({name: table[name].cast(pa.string()) for name in table.column_names})
    except pa.ArrowInvalid:
        rows = [_decoded_row(row) for row in table.to_pylist()]
        schema = pa.schema([(name, pa.string()) for name in (*table.column_names, INVALID_ROW)])
        return pa.Table.from_pylist(rows, schema=schema)
    return decoded.append_column(INVALID_ROW, pa.nulls(len(table), pa.string()))


def _decoded_row(row: dict[str, bytes | None]) -> dict[str, str | None]:
    try:
        return {name: None if value is None else value.decode() for name, value in row.items()}
    except UnicodeDecodeError:
        return {
            INVALID_ROW: ",".join(
                "" if value is None else value.decode(errors="backslashreplace") for value in row.values()
            )
        }
