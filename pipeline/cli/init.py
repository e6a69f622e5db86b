"""A contract to begin with, guessed from a table's header and first rows: what `nightprice init` writes."""

import json
import re
import sys
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from statistics import quantiles
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from nightprice.address import parse_address
from nightprice.defaults import DEFAULT_MISSING_VALUES
from nightprice.errors import UsageError, closest, printable
from nightprice.ray_environment import configure_pipeline
from transforms import readers
from transforms.clean import INVALID_ROW, is_blank, words_for_nothing
from transforms.contract import RESERVED_ANSWERS, RESERVED_FIELDS, RESERVED_RAW

ROWS = 10_000
# A column holds numbers if more than this share of its texts are; a target of few different texts is a class.
SHARE, CLASSES = 0.9, 10
# The bounds of bands are rounded as long as no more than this share of the rows changes its band.
MOVED = 0.05
KEY = "key"
INT64_MAX = 2**63 - 1
TYPES = {"integer": "int64", "number": "float64", "amount": "float64", "text": "string"}
MODULE = """import pyarrow as pa

from transforms.contract import Bands, Classes, Contract, Field, ListColumn, composite_key
from transforms.readers import amount, integer, number, text

# Guessed by `nightprice init` from {file}: correct it, then run `nightprice doctor`.{unread}
CONTRACT = Contract(
    name="{name}",
    version=1,
    record="record",
    records="records",
    fields=(
{fields}
    ),
    key="{key}",
    target="{target}",
    label={label},
    example={example},
)
"""


@dataclass(frozen=True)
class _Column:
    """A column of the file as a field."""

    raw: str
    name: str
    reader: str
    values: list[Any]
    """What its reader can read, row by row."""
    blank: int
    """How many rows have nothing."""
    unread: list[str]
    """What its reader can't read."""


def contract_source(name: str, file: Path, target: str, key: Sequence[str]) -> str:
    """The source of a module that defines `CONTRACT` for a CSV file.

    Raises UsageError if there is no such file, it has no rows or not these columns, or its target has neither few texts
    nor numbers.
    """
    if target in key:
        raise UsageError(f'"{target}" is both key and target. A key identifies a record: name other columns.')
    texts, unread = _columns(file, (target, *key))
    guesses = {raw: _reader(of_column) for raw, of_column in texts.items()}
    if len(set(texts[target])) <= CLASSES:
        guesses[target] = "text"
    values = {raw: _values(guesses[raw], of_column) for raw, of_column in texts.items()}
    has_ids = len(key) == 1 and guesses[key[0]] == "integer" and min(values[key[0]]) >= 0
    ids = key if has_ids else ()
    features = [raw for raw in texts if raw != target and raw not in key]
    names = _names(target, ids, features)
    rows, different = len(texts[target]), len(set(zip(*(texts[raw] for raw in key), strict=True)))
    columns = {
        raw: _Column(raw, names[raw], guesses[raw], values[raw], of_column.count(""), _unread(guesses[raw], of_column))
        for raw, of_column in texts.items()
        if raw in names
    }
    fields = [_field(columns[raw], f"low=0, high={INT64_MAX:_}, required=True") for raw in ids]
    if not has_ids:
        fields = [f'        composite_key("{KEY}", {_texts(key)}, "What identifies a record."),']
    if different < rows:
        repeated = f"{rows - different:,} of {rows:,} rows have a key that occurred"
        fields.insert(0, f"        # {repeated}: repeat --key, if it is of more columns.")
    fields += [*(_field(columns[raw]) for raw in features), _field(columns[target], "required=True")]
    example = {names[raw]: values[raw][0] for raw in (*ids, *features) if values[raw]}
    return MODULE.format(
        file=file.name,
        unread=f"\n# {unread:,} rows are not among what is said of columns: `process` will tell why." if unread else "",
        name=name,
        fields="\n".join(fields),
        key=names[key[0]] if has_ids else KEY,
        target=names[target],
        label=_label(columns[target]),
        example=json.dumps(example, ensure_ascii=False, indent=4).replace("\n", "\n    "),
    )


def _columns(file: Path, needed: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """The texts of every column in the first rows, read as `process` reads them, "" for what is missing; and how many
    rows can't be read.
    """
    configure_pipeline()  # Ray, which stores import, reads it then
    from pipeline.io.files.errors import reading
    from pipeline.io.files.locate import find_files, format_of
    from pipeline.io.files.text import read_csv

    find_files(parse_address(str(file)))
    if not file.is_file() or format_of(str(file)) != "csv":
        raise UsageError(f'"{file}" is not a CSV file on this machine. Name one.')
    with reading(str(file)):
        first = next(read_csv(fs.LocalFileSystem(), str(file.absolute()), _every_column), None)
    rows, unread = pa.table({}), 0
    if first is not None:
        unread = len(first) - first[INVALID_ROW].null_count
        good = first.filter(pc.is_null(first[INVALID_ROW])).slice(0, ROWS)
        if not len(good):
            raise UsageError(
                f"No row of {file} can be read: each is not UTF-8, or has another number of values than the header."
            )
        rows = good.drop_columns([INVALID_ROW])
    words = words_for_nothing(DEFAULT_MISSING_VALUES)
    columns = {
        name: ["" if text is None or is_blank(text, words) else text for text in rows[name].to_pylist()]
        for name in (rows.column_names if len(rows) else ())
        if name
    }
    for column in needed:
        if column not in columns:
            if not columns:
                raise UsageError(f"{file} has a header at most, and no rows. Name a file with rows.")
            listed = ", ".join(columns)
            raise UsageError(f'{file} has no column "{column}".{closest(column, columns)} Its columns: {listed}.')
    return columns, unread


def _every_column(names: Sequence[str], where: str) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f'{where}: column "{name}" occurs {names.count(name)} times. Rename one of them.')
        if name in RESERVED_RAW:
            raise UsageError(f'{where}: no column can be called "{name}": the name has another use. Rename it.')
    return list(names)


def _read(reader: str, raw: str) -> Any:
    try:
        value = getattr(readers, reader)(raw) if raw.strip() else None
    except ValueError:
        return None
    return None if reader == "integer" and value is not None and abs(value) > INT64_MAX else value


def _values(reader: str, texts: Sequence[str]) -> list[Any]:
    return [value for raw in texts if (value := _read(reader, raw)) is not None]


def _unread(reader: str, texts: Sequence[str]) -> list[str]:
    return [raw for raw in texts if raw and _read(reader, raw) is None]


def _reader(texts: Sequence[str]) -> str:
    """The name of the reader that reads most texts, or "text" if none of those for numbers reads nearly all."""
    counts = {name: len(_values(name, texts)) for name in TYPES}
    best = max(("integer", "number", "amount"), key=lambda name: counts[name])
    return best if counts[best] > SHARE * counts["text"] else "text"


def _names(target: str, ids: Sequence[str], features: Sequence[str]) -> dict[str, str]:
    """The name of each column's field: all differ, and none has another use."""
    reserved = {*RESERVED_FIELDS, *(() if ids else (KEY,))}
    names = {target: _free_name(target, reserved | RESERVED_ANSWERS)}
    reserved.add(_band(names[target]))
    for raw in (*ids, *features):
        names[raw] = _free_name(raw, {*reserved, *names.values(), *(RESERVED_ANSWERS if raw in ids else ())})
    return names


def _free_name(raw: str, taken: Collection[str]) -> str:
    """A name like that of a raw column, with a number if it is taken.

    >>> _free_name("Cost (EUR)", ()), _free_name("Cost (EUR)", ("cost_eur",)), _free_name("€", ())
    ('cost_eur', 'cost_eur_2', 'column')
    """
    name = re.sub(r"\W+", "_", raw.strip().lower()).strip("_") or "column"
    candidates = chain((name,), (f"{name}_{number}" for number in count(2)))
    return next(free for free in candidates if free not in taken)


def _band(target: str) -> str:
    return f"{target}_band"


def _field(column: _Column, options: str = "") -> str:
    """The source of a field, below what its texts are; numbers get a generous range."""
    values, reader = column.values, column.reader
    if reader == "text":
        different = sorted(set(values))
        seen = f"{len(different):,} different: {_texts(different if len(different) <= CLASSES else different[:3])}"
    else:
        seen = f"from {min(values)} to {max(values)}"
        if "low" not in options:
            bound = _bound(max(map(abs, values)), reader)
            options = f"low={0 if min(values) >= 0 else f'-{bound}'}, high={bound}, {options}"
    seen += f"; {column.blank:,} blank" if column.blank else ""
    seen += f"; {len(column.unread):,} can't be read, such as {_text(column.unread[0])}" if column.unread else ""
    what = f'"{column.name}", {_texts([column.raw])}, {reader}, pa.{TYPES[reader]}(), {_text(column.raw)}'
    return f"        # {seen}\n        Field({what}, {options}".rstrip(", ") + "),"


def _bound(largest: float, reader: str) -> str:
    """The source of the first power of ten from twice the largest on, as far as the type goes.

    >>> _bound(2015, "integer"), _bound(79, "integer"), _bound(2**62, "integer"), _bound(1e300, "number")
    ('10_000', '1_000', '9_223_372_036_854_775_807', '1e+301')
    """
    bound = 10 ** len(f"{2 * int(largest)}")
    if reader == "integer":
        return f"{min(bound, INT64_MAX):_}"
    return f"{bound:_}" if bound <= INT64_MAX else str(float(min(bound, sys.float_info.max)))


def _label(target: _Column) -> str:
    """The source of the label: classes, or bands of about as many rows each."""
    different = sorted(set(target.values))
    if len(different) < 2:
        raise UsageError(
            f'"{target.raw}" has fewer than two different values in the first {ROWS:,} rows: there is nothing to '
            "predict. Choose another target, or a file with more rows."
        )
    if target.reader != "text":
        bins = _bins(target.values)
        labels = ("Low", "Medium", "High", "Top")[: len(bins) + 1]
        return f'Bands(bins={bins}, labels={_texts(labels)}),\n    label_column="{_band(target.name)}"'
    if len(different) > CLASSES:
        raise UsageError(
            f'"{target.raw}" has {len(different):,} different texts and is not a number: too many classes, and nothing '
            "to divide into bands. Choose another target, or write the contract by hand."
        )
    return f"Classes({_texts(different)})"


def _bins(values: Sequence[float]) -> tuple[float, ...]:
    """The quartiles of numbers of which some differ, with as few digits as leave nearly all rows in their bands.

    >>> _bins(range(103, 1903)), _bins(range(2001, 2022)), _bins([0] * 90 + [1, 2, 3])
    ((550.0, 1000.0, 1500.0), (2006.0, 2011.0, 2016.0), (0.0,))
    """
    ordered = sorted(values)
    # No row would be above the highest number.
    last = max(value for value in ordered if value < ordered[-1])
    exact = [min(cut, last) for cut in quantiles(ordered, n=4)]
    for digits in range(2, 18):  # 17 digits are the number itself
        bins = [float(f"{cut:.{digits}g}") for cut in exact]
        below = [bisect_right(ordered, cut) for cut in bins]
        moved = [abs(rows - bisect_right(ordered, cut)) for rows, cut in zip(below, exact, strict=True)]
        if max(moved) <= MOVED * len(ordered) and below[-1] < len(ordered):
            break
    return tuple(dict(zip(below, bins, strict=True)).values())


def _text(value: str) -> str:
    # A sign that turns the direction of text would let the source look other than it runs.
    return printable(json.dumps(value, ensure_ascii=False))


def _texts(values: Sequence[str]) -> str:
    """The source of a tuple of texts."""
    return f"({', '.join(map(_text, values))}{',' * (len(values) == 1)})"
