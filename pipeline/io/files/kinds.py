"""What a file is, by its first bytes: its name may say something else."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from pyarrow import fs

from pipeline.io.stores import StoreError

HEAD_BYTES = 1 << 16

GZIP = b"\x1f\x8b"
_ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SAVE_AS_CSV = "an Excel workbook. Save its sheet as CSV (UTF-8)"
_ONE_OBJECT_A_LINE = "Write one object a line: jq -c '.[]' FILE > FILE.jsonl"
_BINARY = {
    b"\xd0\xcf\x11\xe0": _SAVE_AS_CSV,
    b"PAR1": "a Parquet file. End its name in .parquet",
    b"BZh": "compressed by bzip2. Unpack it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz. Unpack it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd. Unpack it, or compress it by gzip",
}


@dataclass(frozen=True)
class TextKind:
    """How the text of a file is stored."""

    compression: str | None
    encoding: str
    delimiter: str
    """Of its first line, if it is CSV."""


def text_kind(filesystem: fs.FileSystem, path: str) -> TextKind:
    """How the text of a file is stored; StoreError, with its true kind, if it is not CSV or JSON lines."""
    with filesystem.open_input_stream(path, compression=None) as stream:
        compression = "gzip" if stream.read(len(GZIP)) == GZIP else None
    with filesystem.open_input_stream(path, compression=compression) as stream:
        head = stream.read(HEAD_BYTES)
    encoding = _ENCODINGS.get(head[:2], "utf-8")
    text = head.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")
    for kind in _other_kinds(head, text):
        raise StoreError(f'"{path}" is {kind}.')
    return TextKind(compression, encoding, _delimiter(text.partition("\n")[0]))


def _other_kinds(head: bytes, text: str) -> Iterator[str]:
    if head.startswith(b"PK\x03\x04"):
        yield _SAVE_AS_CSV if b"[Content_Types].xml" in head or b"xl/" in head else "a ZIP archive. Unpack it first"
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            yield kind
    if text.startswith("<"):
        yield (
            "an HTML or XML page, not data, such as a server's page for errors or for logging in. "
            "Open the address in a browser to see it, and fetch the file again"
        )
    if text.startswith("["):
        yield f"one JSON array, not one object a line. {_ONE_OBJECT_A_LINE}"


def _delimiter(header: str) -> str:
    """The delimiter of a header: a comma, unless there is none but another one.

    >>> _delimiter("id;size"), _delimiter("id\\tsize"), _delimiter("id,size"), _delimiter("id")
    (';', '\\t', ',', ',')
    """
    return "," if "," in header else max(",;\t|", key=header.count)


ADVICE = {
    ".zip": "It is a ZIP archive: unpack it first.",
    ".json": f"{_ONE_OBJECT_A_LINE}.",
    ".xlsx": "Save the sheet as CSV (UTF-8).",
    ".xls": "Save the sheet as CSV (UTF-8).",
}
"""What to do with files whose endings name another kind."""
