"""Files are read as what they are, whatever their names say, or refused with their true kind."""

import gzip
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline.io import StoreError, exactly
from pipeline.io.files.locate import format_of
from pipeline.io.files.read import FileSlice, _read_slice
from pipeline.io.files.text import Utf8Stream

CSV = "id,room_type\n1,Loft\n2,Köln\n"


def read(path: Path) -> list[tuple[str, str]]:
    part = FileSlice(str(path), format_of(str(path)), 1)
    tables = list(_read_slice(part, fs.LocalFileSystem(), exactly("id", "room_type")))
    return [(row["id"], row["room_type"]) for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode()),
        ("a.csv", gzip.compress(CSV.encode(), mtime=0)),
        ("a.csv.gz", CSV.encode()),
        ("a.csv", CSV.encode("utf-16")),
        ("a.csv", b"\xfe\xff" + CSV.encode("utf-16-be")),
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.csv", CSV.replace(",", ";").encode()),
        ("a.tsv", CSV.replace(",", "\t").encode()),
        ("a.csv", CSV.replace("id,room_type", " Id,Room Type").encode()),
        ("a.csv", CSV.replace("id,room_type", "ID;ROOM-TYPE").replace(",", ";").encode()),
        ("a.jsonl", gzip.compress('{"id":1,"Room Type":"Loft"}\n{"id":2,"Room Type":"Köln"}'.encode(), mtime=0)),
    ],
)
def test_what_is_beyond_doubt_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read(tmp_path / name) == [("1", "Loft"), ("2", "Köln")]


def test_text_that_grows_in_utf8_is_handed_on_in_the_pieces_that_were_asked_for(tmp_path: Path) -> None:
    """Arrow writes what it gets into the space for what it asked for."""
    (tmp_path / "a.csv").write_bytes(("id\n" + "本" * 5_000).encode("utf-16"))

    with fs.LocalFileSystem().open_input_stream(str(tmp_path / "a.csv")) as raw:
        stream = Utf8Stream(raw, "utf-16")
        pieces = [stream.read(1_000) for _ in range(20)]

    assert {len(piece) for piece in pieces[:15]} == {1_000}
    assert b"".join(pieces).decode() == "id\n" + "本" * 5_000


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"PK\x03\x04....a.csv", "is a ZIP archive. Unpack it first"),
        ("a.csv", b"PK\x03\x04....[Content_Types].xml", "is an Excel workbook. Save its sheet as CSV"),
        ("a.csv", b"PAR1....", "is a Parquet file"),
        ("a.csv", b"\xfd7zXZ....", "is compressed by xz"),
        ("a.csv", b"<!DOCTYPE html><html>", "is an HTML or XML page"),
        ("a.jsonl", b' [{"id": 1}]', "is one JSON array, not one object a line"),
        ("a.csv.zip", b"PK", "not a data file of a known kind. It is a ZIP archive"),
        ("a.json", b"[]", "not a data file of a known kind. Write one object a line"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(StoreError, match=kind):
        read(tmp_path / name)
