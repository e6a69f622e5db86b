"""CSV and JSON lines, read as text, row by row accounted for: a broken line is kept, never dropped."""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv
from pyarrow import fs

from pipeline.io.files.kinds import TextKind, text_kind
from pipeline.io.files.quotes import WatchedStream, check_quotes, count_numbered
from pipeline.io.files.streams import BLOCK_BYTES, LONGEST_LINE, GuardedStream, lines_of
from pipeline.io.stores import Columns, StoreError
from transforms.clean import INVALID_ROW, decoded

LINES = 8_192
HEADER_BYTES = 2**18
# What is kept of a line that is too long.
INVALID_CHARACTERS = 200


def _stream(filesystem: fs.FileSystem, path: str, kind: TextKind) -> pa.NativeFile:
    stream = filesystem.open_input_stream(path, compression=kind.compression)
    return stream if kind.encoding == "utf-8" else pa.PythonFile(Utf8Stream(stream, kind.encoding), "r")


def read_csv(filesystem: fs.FileSystem, path: str, columns: Columns) -> Iterator[pa.Table]:
    """The chosen columns as text; quoted line breaks and bare carriage returns belong to their value.

    A row with too few or too many values, or one that is not UTF-8, comes with its text in `invalid_row`.
    """
    kind = text_kind(filesystem, path)
    open_stream = partial(_stream, filesystem, path, kind)
    seen = 0
    try:
        for table in _csv_tables(open_stream, path, columns, kind.delimiter):
            yield table
            seen += len(table)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            check_quotes(open_stream, path, kind.delimiter)
            raise StoreError(
                f'"{path}": the row after row {seen:,} is longer than {BLOCK_BYTES / 2**20:.3g} MiB. Correct the file, '
                "or leave it out of the source."
            ) from error
        # Arrow gives up at a row that has the wrong length and is not UTF-8. If that was the reason, reading the marked
        # text succeeds; else it fails again.
        for table in _csv_tables(partial(_marked, open_stream), path, columns, kind.delimiter):
            yield _unmarked(table.slice(seen))
            seen = max(0, seen - len(table))


def _csv_tables(
    open_stream: Callable[[], pa.NativeFile], path: str, columns: Columns, delimiter: str
) -> Iterator[pa.Table]:
    names = _header(open_stream, delimiter)
    first, chosen = names[0], columns(names, path)
    read_columns = list(dict.fromkeys((*chosen, first)))
    invalid: list[str] = []

    def keep(row: pa.csv.InvalidRow) -> str:
        invalid.append(row.text or "")
        return "skip"

    convert = pa.csv.ConvertOptions(
        include_columns=read_columns,
        # Binary, not text: one byte that is not UTF-8 would fail the whole file.
        column_types=dict.fromkeys(read_columns, pa.binary()),
        strings_can_be_null=True,
        null_values=[""],
    )
    rows = numbered = 0
    with WatchedStream(open_stream(), delimiter) as watched:
        source = pa.PythonFile(watched, "r")
        with pa.csv.open_csv(source, _blocks(BLOCK_BYTES), _parse(delimiter, keep), convert) as reader:
            for batch in reader:
                rows, numbered = rows + len(batch), numbered + count_numbered(batch[first])
                yield decoded(pa.Table.from_batches([batch]).select(chosen))
    if not watched.has_rows(rows, numbered, invalid):
        check_quotes(open_stream, path, delimiter)
    if invalid:
        yield _invalid_rows(invalid, chosen)


def _header(open_stream: Callable[[], pa.NativeFile], delimiter: str, block: int = HEADER_BYTES) -> list[str]:
    """The names of the columns. Arrow parses the whole block that it finds them in: a small one, if a row fits."""
    try:
        with (
            open_stream() as stream,
            pa.csv.open_csv(stream, _blocks(block), _parse(delimiter, lambda row: "skip")) as reader,
        ):
            return list(reader.schema.names)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) and block < BLOCK_BYTES:
            return _header(open_stream, delimiter, BLOCK_BYTES)
        raise


def _blocks(size: int) -> pa.csv.ReadOptions:
    return pa.csv.ReadOptions(block_size=size, use_threads=False)


def _parse(delimiter: str, handler: Any) -> pa.csv.ParseOptions:
    return pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=handler)


def _invalid_rows(lines: list[str], columns: list[str]) -> pa.Table:
    nulls = dict.fromkeys(columns, pa.nulls(len(lines), pa.string()))
    return pa.table({**nulls, INVALID_ROW: pa.array(lines, pa.string())})


# Two code points that no text may hold stand for a byte that is not UTF-8.
_HIGH, _LOW = 0xFDD0, 0xFDE0
_MARK = re.compile(f"([{chr(_HIGH)}-{chr(_HIGH + 15)}])([{chr(_LOW)}-{chr(_LOW + 15)}])")


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    invalid = error.object[error.start : error.end]
    return "".join(chr(_HIGH + byte // 16) + chr(_LOW + byte % 16) for byte in invalid), error.end


codecs.register_error("nightprice.mark", _mark)


class Utf8Stream(GuardedStream):
    """A stream of text as UTF-8; bytes that are not of its encoding are marked."""

    def __init__(self, stream: pa.NativeFile, encoding: str) -> None:
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder(encoding)("nightprice.mark")
        self._ready = b""

    def read_block(self, size: int | None) -> bytes:
        """As many bytes as were asked for, up to the end: Arrow writes all that it gets into the space for them, and
        takes a short block for a row that is too long.
        """
        block = b"more"
        while block and (size is None or len(self._ready) < size):
            block = super().read_block(size)
            self._ready += self._decoder.decode(block, final=not block).encode()
        taken, self._ready = self._ready[:size], b"" if size is None else self._ready[size:]
        return taken


def _marked(open_stream: Callable[[], pa.NativeFile]) -> pa.NativeFile:
    return pa.PythonFile(Utf8Stream(open_stream(), "utf-8"), "r")


def _unmarked(table: pa.Table) -> pa.Table:
    """Rows with marks become invalid rows, with the bytes escaped."""

    def row(values: dict[str, str | None]) -> dict[str, str | None]:
        if not any(text and _MARK.search(text) for text in values.values()):
            return values
        whole = values[INVALID_ROW] or ",".join(text or "" for text in values.values())
        return {INVALID_ROW: _MARK.sub(lambda mark: f"\\x{ord(mark[1]) - _HIGH:x}{ord(mark[2]) - _LOW:x}", whole)}

    return pa.Table.from_pylist([row(values) for values in table.to_pylist()], schema=table.schema)


def read_json_lines(filesystem: fs.FileSystem, path: str, columns: Columns) -> Iterator[pa.Table]:
    """The chosen columns as text, numbers digit by digit; a line that is not a JSON object comes as an invalid row.

    A record may leave out what is null: the available columns are those of all records so far, at least of the first
    LINES.
    """
    available: dict[str, None] = {}
    chosen: list[str] = []
    with _stream(filesystem, path, text_kind(filesystem, path)) as stream:
        for records in _batched(filter(bytes.strip, lines_of(stream))):
            names = dict.fromkeys(name for record in records for name in record if name != INVALID_ROW)
            if not names.keys() <= available.keys():
                available |= names
                chosen = columns(list(available), path)
            yield _table(records, chosen)


def _batched(lines: Iterable[bytes]) -> Iterator[list[dict[str, str | None]]]:
    """The records of lines: at most LINES, or little more than BLOCK_BYTES."""
    records: list[dict[str, str | None]] = []
    size = 0
    for line in lines:
        records.append(_record(line))
        size += len(line)
        if len(records) == LINES or size > BLOCK_BYTES:
            yield records
            records, size = [], 0
    if records:
        yield records


def _record(line: bytes) -> dict[str, str | None]:
    if len(line) == LONGEST_LINE:
        start = line[:INVALID_CHARACTERS].decode(errors="backslashreplace")
        return {INVALID_ROW: f"{start}… (longer than {LONGEST_LINE // 2**20} MiB)"}
    try:
        record = json.loads(line, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return {INVALID_ROW: line.decode(errors="backslashreplace")}
    return {
        name: value if value is None or isinstance(value, str) else json.dumps(value) for name, value in record.items()
    }


def _table(rows: Sequence[Mapping[str, str | None]], columns: list[str]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in (*columns, INVALID_ROW)])
    try:
        return pa.Table.from_pylist(list(rows), schema=schema)
    except UnicodeEncodeError:  # half of an escaped character
        return pa.Table.from_pylist(
            [row if _is_text(row) else {INVALID_ROW: json.dumps(row)} for row in rows], schema=schema
        )


def _is_text(row: Mapping[str, str | None]) -> bool:
    try:
        "".join(value for value in row.values() if value).encode()
    except UnicodeEncodeError:
        return False
    return True
