"""A quote that swallows rows is found, and what only looks like one is read."""

from pathlib import Path

import pytest
from pyarrow import fs

from pipeline.io import StoreError, exactly
from pipeline.io.files import quotes
from pipeline.io.files import text as text_files
from pipeline.io.files.text import read_csv
from transforms.clean import INVALID_ROW

HEADER = "id,name,city,price,notes"


def row(number: int, name: str = "loft", notes: str = "x") -> str:
    return f"{number},{name},Bronx,{number}.5,{notes}"


def read(path: Path, lines: list[str], *columns: str) -> list[dict[str, str | None]]:
    path.write_text("\n".join(lines) + "\n")
    tables = read_csv(fs.LocalFileSystem(), str(path), exactly(*columns or ("id", "price")))
    return [values for table in tables for values in table.to_pylist()]


@pytest.mark.parametrize(
    ("broken", "lines"),
    [
        ({4: row(4, name='"loft')}, "line 5"),
        ({4: row(4, notes='"x')}, "line 5"),
        ({4: row(4, name='"loft'), 9: row(9, name='"loft')}, "line 5"),
        ({4: row(4, notes='"x'), 5: row(5, notes='"x')}, "line 5.*the next line up to line 6, which is a row"),
        ({4: row(4, name='"loft'), 7: "broken", 9: ",y,z,1,2"}, "line 5"),
    ],
)
def test_rows_that_a_quote_swallows_are_an_error_with_file_and_line(
    tmp_path: Path, broken: dict[int, str], lines: str
) -> None:
    path = tmp_path / "a.csv"

    with pytest.raises(StoreError, match=rf"a\.csv\", {lines}"):
        read(path, [HEADER, *(broken.get(number, row(number)) for number in range(1, 13))])


def test_rows_without_numbers_are_watched_too(tmp_path: Path) -> None:
    lines = ["name,city,size", "a,x,1", 'b,"y,2', 'c,"z,3', "d,w,4"]

    with pytest.raises(StoreError, match=r"line 3: .* the next line up to line 4"):
        read(tmp_path / "a.csv", lines, "name")


def test_a_quote_that_takes_in_blocks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 200)
    lines = [HEADER, *(row(number) for number in range(1, 40)), row(40, notes='"x'), row(41, notes='"x'), row(42)]

    with pytest.raises(StoreError, match="line 41"):
        read(tmp_path / "a.csv", lines)


def test_a_quote_that_takes_in_more_than_a_block_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_files, quotes):
        monkeypatch.setattr(module, "BLOCK_BYTES", 200)
    lines = [HEADER, row(1), row(2, notes='"x'), *(row(number) for number in range(3, 60))]

    with pytest.raises(StoreError, match=r"line 3: a quote opens a value"):
        read(tmp_path / "a.csv", lines)


def test_a_row_of_more_than_a_block_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 1_000)

    with pytest.raises(StoreError, match=r"the row after row 40 is longer"):
        read(tmp_path / "a.csv", [HEADER, *(row(number) for number in range(1, 41)), row(41, notes="x" * 5_000)])


ODD = [
    '"two\nlines"',
    '"1, first\n2, second\n3,4,5"',
    '"a, b, c, d, e, f\n\n\ng"',
    '5" wide',
    '"said ""no"""',
    '",\n"',
]


@pytest.mark.parametrize("notes", ODD)
def test_values_that_may_hold_line_breaks_and_quotes_are_read(tmp_path: Path, notes: str) -> None:
    rows = read(tmp_path / "a.csv", [HEADER, row(1), row(2, name=notes), row(3, notes=notes), "", row(4)])

    assert [values["id"] for values in rows] == ["1", "2", "3", "4"]


def test_a_file_cut_off_in_its_last_value_has_one_broken_row(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", [HEADER, row(1), '2,"loft'])

    assert [values["id"] for values in rows if values[INVALID_ROW] is None] == ["1"]
    assert len(rows) == 2


def test_a_good_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "check_quotes", lambda *_: pytest.fail("read again"))

    assert len(read(tmp_path / "a.csv", [HEADER, *(row(number, notes='"a\nb"') for number in range(1, 9))])) == 8


def test_rows_without_a_number_where_others_have_one_are_no_reason_to_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "check_quotes", lambda *_: pytest.fail("read again"))
    odd = [row(2).replace("2,", value, 1) for value in ("#REF!,", ",", '"5.4E+17",', '"12",')]

    assert len(read(tmp_path / "a.csv", [HEADER, row(1), *odd], "price")) == 5


def test_a_reader_that_gives_up_leaves_the_next_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow reads ahead when it fails, here at a row of the wrong length that is not UTF-8."""
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 4_096)
    path = tmp_path / "a.csv"
    good = "".join(f"{row(number)}\n" for number in range(1, 1_000)).encode()
    path.write_bytes(HEADER.encode() + b"\n" + good + b"7,caf\xe9\n" + good)

    for _ in range(10):
        tables = read_csv(fs.LocalFileSystem(), str(path), exactly("id", "price"))
        assert sum(map(len, tables)) == 2 * 999 + 1
