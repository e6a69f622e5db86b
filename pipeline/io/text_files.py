"""CSV and JSON lines, read as text, row by row accounted for: a broken line is kept, never dropped."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
from pyarrow import fs

from pipeline.io.base import Columns
from transforms.clean import INVALID_ROW

BLOCK_BYTES = 16 * 2**20
LINES = 8_192


def _stream(filesystem: fs.FileSystem, path: str) -> pa.NativeFile:
    return filesystem.open_input_stream(path, compression="gzip" if path.lower().endswith(".gz") else None)


def read_csv(filesystem: fs.FileSystem, path: str, columns: Columns) -> Iterator[pa.Table]:
    """The chosen columns as text; quoted line breaks and bare carriage returns belong to their value.

    A row with too few or too many values, or one that is no UTF-8, comes with its text in `invalid_row`.
    """
    read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
    with _stream(filesystem, path) as stream, pa.csv.open_csv(stream, read, _parse(lambda row: "skip")) as header:
        chosen = columns(header.schema.names, path)
    invalid: list[str] = []

    def keep(row: pa.csv.InvalidRow) -> str:
        invalid.append(row.text or "")
        return "skip"

    convert = pa.csv.ConvertOptions(
        include_columns=chosen,
        # Binary, not text: one byte that is no UTF-8 would fail the whole file.
        column_types=dict.fromkeys(chosen, pa.binary()),
        strings_can_be_null=True,
        null_values=[""],
    )
    with _stream(filesystem, path) as stream, pa.csv.open_csv(stream, read, _parse(keep), convert) as reader:
        for batch in reader:
            yield _decoded(pa.Table.from_batches([batch]))
        if invalid:
            yield _invalid_rows(invalid, chosen)


def _parse(handler: Any) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler)


def _invalid_rows(lines: list[str], columns: list[str]) -> pa.Table:
    nulls = dict.fromkeys(columns, pa.nulls(len(lines), pa.string()))
    return pa.table({**nulls, INVALID_ROW: pa.array(lines, pa.string())})


def _decoded(table: pa.Table) -> pa.Table:
    """Binary columns as text; rows that are no UTF-8 become invalid rows with their bytes escaped."""
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
        return {INVALID_ROW: ",".join("" if value is None else value.decode(errors="backslashreplace") for value in row.values())}


def read_json_lines(filesystem: fs.FileSystem, path: str, columns: Columns) -> Iterator[pa.Table]:
    """The chosen columns as text, numbers digit by digit; a line that is no JSON object comes as an invalid row."""
    chosen: list[str] | None = None
    rows: list[dict[str, str | None]] = []
    with _stream(filesystem, path) as stream:
        for line in _lines(stream):
            if not line.strip():
                continue
            record = _record(line)
            if chosen is None and INVALID_ROW not in record:
                chosen = columns(list(record), path)
            rows.append(record)
            if len(rows) >= LINES and chosen is not None:
                yield _table(rows, chosen)
                rows = []
    if rows:
        yield _table(rows, chosen or [])


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    yield rest


def _record(line: bytes) -> dict[str, str | None]:
    try:
        record = json.loads(line, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return {INVALID_ROW: line.decode(errors="backslashreplace")}
    return {name: value if value is None or isinstance(value, str) else json.dumps(value) for name, value in record.items()}


def _table(rows: list[dict[str, str | None]], columns: list[str]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in (*columns, INVALID_ROW)]))
