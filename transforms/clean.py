"""Raw tables in; accepted rows, rejected rows with their reasons, and warnings out."""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.contract import (
    AMENITIES_COLUMN,
    CATEGORY,
    FIELDS,
    PRICE,
    RAW_COLUMNS,
    UNPARSEABLE,
    Field,
    Pricing,
    accepted_schema,
    is_warning,
    price_category,
    read_price,
    read_value,
)
from transforms.encode import UNKNOWN, Vocabulary
from transforms.lift import distinct, lift, lift_any
from transforms.listings.amenities import amenities_from_text

# What a source adds to the raw columns: where a row comes from, and the text of a line that is no valid row.
SOURCE_FILE = "source_file"
INVALID_ROW = "invalid_row"
REASONS = "reasons"
INVALID_ROW_REASON = "row:invalid"

REASONS_TYPE = pa.list_(pa.string())
REJECTED_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in (*RAW_COLUMNS, INVALID_ROW, SOURCE_FILE)),
        pa.field(REASONS, REASONS_TYPE),
    ]
)

Mask = npt.NDArray[np.bool_]
ITEM_FIELDS = tuple(item for item in FIELDS if item.of_items)
_flags = lift_any([item.read for item in ITEM_FIELDS], amenities_from_text)


@dataclass(frozen=True)
class CleanedTable:
    """A raw table's two parts."""

    accepted: pa.Table
    rejected: pa.Table
    warnings: pa.Array
    """For each accepted row the list of its `field:problem`, null where there is none."""


def clean(raw: pa.Table, pricing: Pricing | None = None, known: Vocabulary | None = None) -> CleanedTable:
    """Split a raw table by the contract; every row ends in exactly one of the two parts.

    `raw` has columns named as in RAW_COLUMNS (absent ones count as blank), of text or what `as_text` makes text of,
    optionally
    `source_file` and `invalid_row`. With `pricing` the price is required and accepted rows get their category;
    without, both are
    left out. With `known`, categories that a model has not learned are rejected as `field:unknown`.
    """
    raw = pa.table({name: as_text(raw[name]) for name in REJECTED_SCHEMA.names if name in raw.column_names})
    columns: dict[str, pa.Array] = {}
    problems: list[tuple[str, Mask]] = []
    warned: list[tuple[str, Mask]] = []
    flags, unreadable = _flags(_raw_column(raw, AMENITIES_COLUMN))
    if unreadable.any():
        warned.append((f"{AMENITIES_COLUMN}:{UNPARSEABLE}", unreadable))
    for position, item in enumerate(ITEM_FIELDS):
        columns[item.name] = pa.array(flags[:, position])
    for item in FIELDS:
        if item.of_items or (item is PRICE and pricing is None):
            continue
        columns[item.name], found = _read_column(item, raw, pricing)
        for problem, mask in found.items():
            (warned if is_warning(item, problem) else problems).append((f"{item.name}:{problem}", mask))
    if pricing is not None:
        columns[CATEGORY] = lift(lambda price: None if price is None else price_category(price, pricing), pa.string())(
            columns[PRICE.name]
        )
    if known is not None:
        problems += [(f"{name}:{UNKNOWN}", mask) for name, mask in known.unknown(columns).items()]
    if INVALID_ROW in raw.column_names:
        invalid = pc.is_valid(raw[INVALID_ROW]).to_numpy()
        if invalid.any():
            problems = [(reason, mask & ~invalid) for reason, mask in problems] + [(INVALID_ROW_REASON, invalid)]
    schema = accepted_schema(with_price=pricing is not None)
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    return _split(raw, table, problems, warned)


def _split(
    raw: pa.Table, table: pa.Table, problems: list[tuple[str, Mask]], warned: list[tuple[str, Mask]]
) -> CleanedTable:
    bad = np.zeros(len(raw), np.bool_)
    for _, mask in problems:
        bad |= mask
    warnings = _lists([(reason, mask[~bad]) for reason, mask in warned], len(raw) - int(bad.sum()))
    if not bad.any():
        return CleanedTable(table, REJECTED_SCHEMA.empty_table(), warnings)
    rows = np.flatnonzero(bad)
    reasons = _lists([(reason, mask[rows]) for reason, mask in problems], len(rows))
    taken = raw.take(pa.array(rows))
    nulls = pa.nulls(len(rows), pa.string())
    texts = [_plain(taken[name]) if name in taken.column_names else nulls for name in REJECTED_SCHEMA.names[:-1]]
    rejected = pa.table([*texts, reasons], schema=REJECTED_SCHEMA)
    return CleanedTable(table.filter(pa.array(~bad)), rejected, warnings)


def _lists(marked: list[tuple[str, Mask]], rows: int) -> pa.Array:
    """For each row the list of the texts whose mask marks it, or null."""
    lists: dict[int, list[str]] = {}
    for text, mask in marked:
        for row in np.flatnonzero(mask).tolist():
            lists.setdefault(row, []).append(text)
    return pa.array([lists.get(row) for row in range(rows)], REASONS_TYPE) if lists else pa.nulls(rows, REASONS_TYPE)


def _read_column(item: Field, raw: pa.Table, pricing: Pricing | None) -> tuple[pa.Array, dict[str, Mask]]:
    """The values of one field and, for each problem that occurs, the rows that have it."""
    texts, indices = distinct(_coalesced(item, raw))
    good = _all_good(item, texts)
    if good is not None:
        return good.take(pa.array(indices)), {}
    if item is PRICE and pricing is not None:
        outcomes = [read_price(text, pricing) for text in texts]
    else:
        outcomes = [read_value(item, text) for text in texts]
    values = pa.array([value for value, _ in outcomes], item.type).take(pa.array(indices))
    names = {problem for _, problem in outcomes if problem}
    return values, {name: np.array([problem == name for _, problem in outcomes])[indices] for name in sorted(names)}


def _all_good(item: Field, texts: list[str | None]) -> pa.Array | None:
    """The values of texts that can all be read and are all in range, or None if any may not be.

    Saves nearly all-distinct columns (ids, coordinates) half of their time: the range is asked of the extremes alone.
    """
    if item.low is None or item.high is None:
        return None
    try:
        values = [item.read(text) for text in texts]  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError):
        # Blank, missing or unreadable ones are there.
        return None
    if not values or item.problem(min(values)) or item.problem(max(values)):
        return None
    return pa.array(values, item.type)


def _coalesced(item: Field, raw: pa.Table) -> pa.Array | pa.ChunkedArray:
    """The first of a field's raw columns that is not blank, row by row."""
    first, *others = [_raw_column(raw, name) for name in item.columns]
    for other in others:
        blank = lift(lambda text: text is None or not text.strip(), pa.bool_())(first)
        if pc.any(blank).as_py():
            first = pc.if_else(blank, _plain(other), _plain(first))
    return first


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _raw_column(raw: pa.Table, name: str) -> pa.Array | pa.ChunkedArray:
    return raw[name] if name in raw.column_names else pa.nulls(len(raw), pa.string())


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A stored column as text, plain or dictionary-encoded: numbers digit by digit, lists, structs and maps as JSON."""
    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        return column
    if pa.types.is_nested(column.type):
        texts = [
            None if value is None else json.dumps(value, ensure_ascii=False, default=str)
            for value in column.to_pylist()
        ]
        return pa.chunked_array([texts], pa.string())
    # From 10**15 on Arrow writes a float as a power of ten: an id that may have lost its last digits is no whole
    # number.
    return column.cast(pa.string())
