"""A contract to begin with, guessed from a table's header and first rows: what `nightprice init` writes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from nightprice.defaults import DEFAULT_MISSING_VALUES
from nightprice.errors import UsageError, closest, printable
from nightprice.ray_environment import configure_pipeline
from transforms import readers
from transforms.clean import INVALID_ROW, is_blank, words_for_nothing

ROWS = 10_000
# A column holds numbers if more than this share of its texts are; a target of few different texts is a class.
SHARE, CLASSES = 0.9, 10
TYPES = {"integer": "int64", "number": "float64", "amount": "float64", "text": "string"}
MODULE = """import pyarrow as pa

from transforms.contract import Bands, Classes, Contract, Field, ListColumn, composite_key
from transforms.readers import amount, integer, number, text

# Guessed by `nightprice init` from {file}: correct it, then run `nightprice doctor`.
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


def contract_source(name: str, file: Path, target: str, key: Sequence[str]) -> str:
    """The source of a module that defines `CONTRACT` for a CSV file.

    Raises UsageError if the file has no rows or not these columns, or its target has neither few texts nor numbers.
    """
    if target in key:
        raise UsageError(f'"{target}" is both key and target. A key identifies a record: name other columns.')
    columns = _columns(file, (target, *key))
    guesses = {column: _reader(texts) for column, texts in columns.items()}
    if len(set(columns[target])) <= CLASSES:
        guesses[target] = "text"
    has_ids = len(key) == 1 and guesses[key[0]] == "integer"
    features = [column for column in columns if column != target and [column] != list(key)]
    fields = [f'        composite_key("key", {_texts(key)}, "What identifies a record."),']
    if has_ids:
        fields = [_field(key[0], "integer", columns[key[0]], "low=0, high=2**63 - 1, required=True")]
    fields += [_field(column, guesses[column], columns[column]) for column in features]
    fields.append(_field(target, guesses[target], columns[target], "required=True"))
    first = ((column, _read(guesses[column], columns[column][0])) for column in (*key[:has_ids], *features))
    example = {_name(column): value for column, value in first if value is not None}
    return MODULE.format(
        file=file.name,
        name=name,
        fields="\n".join(fields),
        key=_name(key[0]) if has_ids else "key",
        target=_name(target),
        label=_label(target, _values(guesses[target], columns[target])),
        example=json.dumps(example, ensure_ascii=False, indent=4).replace("\n", "\n    "),
    )


def _columns(file: Path, needed: Sequence[str]) -> dict[str, list[str]]:
    """The texts of every column in the first rows, read as `process` reads them; "" for what is missing."""
    configure_pipeline()  # Ray, which stores import, reads it then
    from pipeline.io.files.errors import reading
    from pipeline.io.files.text import read_csv

    with reading(str(file)):
        first = next(read_csv(fs.LocalFileSystem(), str(file.absolute()), _every_column), None)
    rows = pa.table({})
    if first is not None:
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
            listed = ", ".join(columns) or "none with a row below the header"
            raise UsageError(f'{file} has no column "{column}".{closest(column, columns)} Its columns: {listed}.')
    return columns


def _every_column(names: Sequence[str], where: str) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f'{where}: column "{name}" occurs {names.count(name)} times. Rename one of them.')
    return list(names)


def _read(reader: str, raw: str) -> Any:
    try:
        return getattr(readers, reader)(raw) if raw.strip() else None
    except ValueError:
        return None


def _values(reader: str, texts: Sequence[str]) -> list[Any]:
    return [value for raw in texts if (value := _read(reader, raw)) is not None]


def _reader(texts: Sequence[str]) -> str:
    """The name of the reader that reads most texts, or "text" if none of those for numbers reads nearly all."""
    counts = {name: len(_values(name, texts)) for name in TYPES}
    best = max(("integer", "number", "amount"), key=lambda name: counts[name])
    return best if counts[best] > SHARE * counts["text"] else "text"


def _field(column: str, reader: str, texts: Sequence[str], options: str = "") -> str:
    """The source of a field, below what its texts are; numbers get a generous range."""
    values = _values(reader, texts)
    if reader == "text":
        different = sorted(set(values))
        seen = f"{len(different):,} different: {_texts(different if len(different) <= CLASSES else different[:3])}"
    else:
        seen = f"from {min(values)} to {max(values)}"
        bound = min(10 ** len(f"{max(map(abs, values)):.0f}"), 2**63 - 1)
        if "low" not in options:
            options = f"low={0 if min(values) >= 0 else -bound:_}, high={bound:_}, {options}"
    what = f'"{_name(column)}", {_texts([column])}, {reader}, pa.{TYPES[reader]}(), {_text(column)}'
    return f"        # {seen}\n        Field({what}, {options}".rstrip(", ") + "),"


def _label(target: str, values: Sequence[Any]) -> str:
    """The source of the label: classes, or bands of about as many rows each."""
    if not isinstance(values[0], str):
        bins = tuple(sorted({float(f"{cut:.2g}") for cut in quantiles(values, n=4)}))
        labels = ("Low", "Medium", "High", "Top")[: len(bins) + 1]
        return f'Bands(bins={bins}, labels={_texts(labels)}),\n    label_column="{_name(target)}_band"'
    classes = sorted(set(values))
    if len(classes) > CLASSES:
        raise UsageError(
            f'"{target}" has {len(classes):,} different texts and is not a number: too many classes, and nothing to '
            "divide into bands. Choose another target, or write the contract by hand."
        )
    return f"Classes({_texts(classes)})"


def _name(column: str) -> str:
    return re.sub(r"\W+", "_", column.strip().lower()).strip("_")


def _text(value: str) -> str:
    # A sign that turns the direction of text would let the source look other than it runs.
    return printable(json.dumps(value, ensure_ascii=False))


def _texts(values: Sequence[str]) -> str:
    """The source of a tuple of texts."""
    return f"({', '.join(map(_text, values))}{',' * (len(values) == 1)})"
