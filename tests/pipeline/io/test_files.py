"""Reading files: the traps of real CSVs, and addresses that lead nowhere."""

import gzip
import json
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from pyarrow import fs

from nightprice.address import parse_address
from nightprice.errors import UsageError
from pipeline.cluster.session import ray_errors
from pipeline.io import StoreError, exactly, write
from pipeline.io.files import locate, streams
from pipeline.io.files import read as read_module
from pipeline.io.files import text as text_files
from pipeline.io.files import write as write_module
from pipeline.io.files.locate import check_apart, find_files, warn_of_left_out
from tests.support.raw_listings import listing, table_of, write_csv
from tests.support.stores import rows_at
from transforms.clean import INVALID_ROW, SOURCE_FILE
from transforms.listings import CONTRACT

pytestmark = pytest.mark.usefixtures("ray_session")


def rows_of(uri: Path | str, columns: Any = CONTRACT.choose_columns) -> list[dict[str, Any]]:
    with ray_errors():
        return list(rows_at(str(uri), columns).take_all())


def test_line_breaks_and_carriage_returns_inside_quotes_belong_to_their_value(tmp_path: Path) -> None:
    odd = 'Loft\r\n"by\rthe" park,\nquiet'
    path = write_csv(tmp_path / "x.csv", [listing(1, property_type=odd), listing(2)])

    assert [row["property_type"] for row in rows_of(path)] == [odd, "Entire loft"]


def test_everything_comes_as_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [listing(1, id="0012345678901234567890", accommodates="03")])

    (row,) = rows_of(path)

    assert (row["id"], row["accommodates"], row[SOURCE_FILE]) == ("0012345678901234567890", "03", str(path))


def test_a_line_with_too_few_or_too_many_values_is_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [listing(1), listing(2)])
    path.write_text(path.read_text() + "3,broken\n" + ",".join("x" * 20) + "\n")

    rows = rows_of(path)

    assert [row[INVALID_ROW] for row in rows] == [None, None, "3,broken", ",".join("x" * 20)]
    assert rows[2]["id"] is None


def test_a_row_that_is_no_utf8_is_kept_and_its_neighbours_are_read(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [listing(1), listing(2, neighbourhood_group_cleansed="Br?nx"), listing(3)])
    path.write_bytes(path.read_bytes().replace(b"Br?nx", b"Br\xffnx"))

    rows = rows_of(path)

    assert [row[INVALID_ROW] is None for row in rows] == [True, False, True]
    assert "Br\\xffnx" in rows[1][INVALID_ROW]


def test_a_row_of_the_wrong_length_may_be_no_utf8_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small blocks: some rows are out before the one that Arrow gives up at.
    monkeypatch.setattr("pipeline.io.files.text.BLOCK_BYTES", 4_096)
    path = write_csv(
        tmp_path / "x.csv", [listing(number, neighbourhood_group_cleansed="Zürich" * 9) for number in range(60)]
    )
    lines = path.read_bytes().splitlines(keepends=True)
    lines[50] = lines[50].replace(b"Z", b"\xfe", 1)
    lines[40] = b"4,bro\xe2\x82ken\n"
    lines[20] = b"2,broken\n"
    path.write_bytes(b"".join(lines))

    tables = list(text_files.read_csv(fs.LocalFileSystem(), str(path), CONTRACT.choose_columns))

    assert len(tables) > 2
    rows = pa.concat_tables(tables).to_pylist()
    there = [row["id"] for row in rows if row[INVALID_ROW] is None]
    assert there == [str(2**60 + number) for number in range(60) if number not in (19, 39, 49)]
    short, broken, middle = sorted((row[INVALID_ROW] for row in rows if row[INVALID_ROW]), key=len)
    assert (short, broken) == ("2,broken", "4,bro\\xe2\\x82ken")
    assert "\\xfeürichZürich" in middle


def test_a_json_line_with_half_a_character_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        "\n".join(json.dumps(listing(number, property_type="x \ud83d" if number == 2 else "x")) for number in (1, 2, 3))
    )

    rows = rows_of(path)

    assert [row[INVALID_ROW] is None for row in rows] == [True, False, True]
    assert "x \\ud83d" in rows[1][INVALID_ROW]


def test_a_json_line_that_is_too_long_is_an_invalid_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LONGEST_LINE": 1_000, "BLOCK_BYTES": 300}.items():
        monkeypatch.setattr(streams, name, value)
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1_000)
    path = tmp_path / "x.jsonl.gz"
    lines = [json.dumps(listing(number, property_type="x" * length)) for number, length in ((1, 1), (2, 10**5), (3, 1))]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))

    tables = text_files.read_json_lines(fs.LocalFileSystem(), str(path), CONTRACT.choose_columns)
    good, invalid, last = (row for table in tables for row in table.to_pylist())

    assert (good["id"], last["id"]) == (str(2**60 + 1), str(2**60 + 3))
    assert invalid[INVALID_ROW].startswith('{"id": "')
    assert len(invalid[INVALID_ROW]) < 300


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [listing(1)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert len(rows_of(path)) == 1


def test_json_lines_keep_digits_and_lists_and_broken_lines(tmp_path: Path) -> None:
    good = {**listing(1), "id": 1009876543210987655, "latitude": 40.10, "amenities": ["TV", "Wifi"]}
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(good)}\n\n{{broken\n[1]\n".encode()))

    rows = rows_of(path)

    assert (rows[0]["id"], rows[0]["latitude"], json.loads(rows[0]["amenities"])) == (
        "1009876543210987655",
        "40.1",
        ["TV", "Wifi"],
    )
    assert [row[INVALID_ROW] for row in rows] == [None, "{broken", "[1]"]


def test_a_large_parquet_file_is_divided_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(listing(number) for number in range(100)), path, row_group_size=10)
    monkeypatch.setattr(read_module, "LARGEST_TASK_BYTES", path.stat().st_size // 5)

    dataset = rows_at(str(path), exactly("id"))

    assert dataset.materialize().num_blocks() > 2
    assert sorted(int(row["id"]) - 2**60 for row in dataset.take_all()) == list(range(100))


def test_files_are_divided_evenly_among_a_few_tasks_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "SMALLEST_TASK_BYTES", 1)
    cpus = int(ray.cluster_resources()["CPU"])
    for number in range(2 * read_module.TASKS_PER_CPU * cpus):
        (tmp_path / f"{number:03d}.csv").write_text(f"id\n{number + 1000}\n")

    rows = (
        rows_at(str(tmp_path), exactly("id"))
        .map_batches(lambda block: {"ids": [block["id"].tolist()]}, batch_size=None)
        .take_all()
    )

    together = sorted(row["ids"] for row in rows)
    assert together == [
        [str(number), str(number + 1)] for number in range(1000, 1000 + 2 * read_module.TASKS_PER_CPU * cpus, 2)
    ]


def test_a_star_stops_at_a_slash_and_two_do_not(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for path in (
        tmp_path / "1.csv",
        tmp_path / "a" / "2.csv",
        tmp_path / "a" / "b" / "3.csv",
        tmp_path / "a" / "notes.txt",
    ):
        path.write_text("id\n1\n")

    def found(pattern: str) -> list[str]:
        return [Path(item.path).name for item in find_files(parse_address(f"{tmp_path}/{pattern}")).files]

    assert found("*.csv") == ["1.csv"]
    assert found("*/*.csv") == ["2.csv"]
    assert found("**/*.csv") == ["1.csv", "2.csv", "3.csv"]
    assert found("") == ["1.csv", "2.csv", "3.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 this is none", r'x\.parquet" cannot be read: .*Parquet'),
        ("x.csv.gz", b"no gzip at all", r'x\.csv\.gz" cannot be read: '),
        ("x.csv.gz", gzip.compress(b"id,price\n" + b"1,2\n" * 9999)[:60], r'x\.csv\.gz" cannot be read: '),
        ("x.csv", b"", r'x\.csv" cannot be read: Empty CSV file'),
        (
            "x.csv",
            b"\xff,price\n1,2\n",
            r'x\.csv" cannot be read: it is not UTF-8 text \(invalid start byte at byte 0\)\. ',
        ),
        ("x.csv", bytes(range(128, 256)) * 90, r'x\.csv" cannot be read: [ -~…]*\. Replace the file'),
        ("x.txt", b"id\n1\n", r'x\.txt" is not a data file of a known kind\. Expected an ending of \.parquet'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(StoreError, match=message):
        rows_of(tmp_path / name, exactly("id"))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere", r"no data file found \(nothing is there\)"),
        ("*.csv", r"no data file found \(nothing matches\)"),
        ("s33://bucket/x", r'there is no store for "s33"\. Did you mean "s3"\? Known: '),
    ],
)
def test_an_address_without_data_is_a_clear_error(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        rows_of(uri if "://" in uri else tmp_path / uri)


def test_files_of_other_kinds_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csv(tmp_path / "a.csv", [listing(1)])
    for name in ("notes.txt", "b.csv.zip", ".hidden", "_SUCCESS"):
        (tmp_path / name).touch()

    found = find_files(parse_address(str(tmp_path)))
    warn_of_left_out(parse_address(str(tmp_path)), found.left_out)

    left_out = [str(tmp_path / "b.csv.zip"), str(tmp_path / "notes.txt")]
    assert ([Path(item.path).name for item in found.files], found.left_out) == (["a.csv"], left_out)
    assert f"2 files are left out, whose endings name no format of data: {', '.join(left_out)}." in caplog.text


def test_an_empty_parquet_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(table_of([]), tmp_path / "x.parquet")

    assert rows_of(tmp_path) == []


def test_typed_columns_keep_their_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [2**60 + 1], "flag": [True]}), tmp_path / "x.parquet")

    assert rows_of(tmp_path, exactly("flag", "id")) == [
        {"flag": True, "id": 2**60 + 1, SOURCE_FILE: str(tmp_path / "x.parquet")}
    ]


def test_columns_of_different_types_in_files_of_one_task_come_as_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [listing(1)])
    pq.write_table(table_of([listing(2)]), tmp_path / "b.parquet")
    typed = table_of([listing(3)])
    for name, column in {
        "id": pa.array([2**60 + 3]),
        "price": pa.array([75.5]),
        "amenities": pa.array([["TV"]]),
    }.items():
        typed = typed.set_column(typed.column_names.index(name), name, column)
    pq.write_table(typed, tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text(json.dumps(listing(4)))

    rows = rows_of(tmp_path)

    assert [row["id"] for row in rows] == [str(2**60 + number) for number in (1, 2, 3, 4)]
    assert (rows[2]["price"], rows[2]["amenities"]) == ("75.5", '["TV"]')


@pytest.mark.parametrize("type", [pa.binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())], ids=str)
def test_texts_that_parquet_holds_as_bytes_are_text_and_others_are_kept(tmp_path: Path, type: pa.DataType) -> None:
    table = table_of([listing(1), listing(2)])
    prices = pa.array([b"$75.00", b"\xff75"], type)
    pq.write_table(table.set_column(table.column_names.index("price"), "price", prices), tmp_path / "x.parquet")

    good, bad = rows_of(tmp_path)

    assert (good["price"], good[INVALID_ROW], bad["price"]) == ("$75.00", None, None)
    assert "\\xff75" in bad[INVALID_ROW]


def test_views_in_parquet_are_read_like_all_texts(tmp_path: Path) -> None:
    table = table_of([{**listing(1), "amenities": None}, listing(2)])
    expected = table.set_column(table.column_names.index("amenities"), "amenities", pa.array(['["TV"]', "[]"]))
    pq.write_table(expected, tmp_path / "plain.parquet")
    views = table.cast(pa.schema([(name, pa.string_view()) for name in table.column_names]))
    lists = pa.array([["TV"], []], pa.list_view(pa.string_view()))
    views = views.set_column(views.column_names.index("amenities"), "amenities", lists)
    pq.write_table(views, tmp_path / "views.parquet")

    plain, read = rows_of(tmp_path / "plain.parquet"), rows_of(tmp_path / "views.parquet")

    assert [{**row, SOURCE_FILE: ""} for row in read] == [{**row, SOURCE_FILE: ""} for row in plain]


def test_records_of_json_lines_may_leave_out_what_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LINES", 2)
    absent = ("neighbourhood_group_cleansed", "bathrooms", "price")
    first = {name: value for name, value in listing(1).items() if name not in absent}
    lines = [first, listing(2, neighbourhood_group_cleansed=None, bathrooms=None), listing(3), {"id": "4"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = find_files(parse_address(str(tmp_path)))
    filesystem, (file,) = found.filesystem, found.files

    tables = list(text_files.read_json_lines(filesystem, file.path, CONTRACT.choose_columns))

    assert [table["price"].to_pylist() for table in tables] == [[None, "$75.00"], ["$75.00", None]]
    assert tables[1]["neighbourhood_group_cleansed"].to_pylist() == ["Brooklyn", None]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "An address is blank"),
        (" ", "An address is blank"),
        ("http://[::1/x.csv", r'"http://\[::1/x\.csv" is not an address: Invalid IPv6'),
    ],
)
def test_what_is_no_address_is_wrong_usage(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows_at(uri, CONTRACT.choose_columns)


def test_the_web_is_no_sink() -> None:
    with pytest.raises(StoreError, match=r'"https://example\.org/x" can only be read\. Write to a folder, a bucket or'):
        write(parse_address("https://ann:secret@example.org/x?token=y"), ray.data.from_items([1]), pa.schema([]), "id")


@pytest.mark.parametrize(
    ("source", "sink"),
    [("raw", "raw"), ("raw", "raw/out"), ("raw/", "file://{0}/raw/a/b"), ("s3://b/raw", "s3://b/raw/dataset")],
)
def test_a_sink_in_its_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sink: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="the next run would read what this one writes"):
        check_apart(parse_address(source), parse_address(sink.format(tmp_path)))


@pytest.mark.parametrize(
    ("source", "sink"),
    [("raw", "rawer"), ("raw", "."), ("raw/*.csv", "raw/out"), ("raw", "s3://b/raw"), ("sqlite:///x.db?table=a", "x")],
)
def test_a_sink_beside_its_source_is_not(source: str, sink: str) -> None:
    check_apart(parse_address(source), parse_address(sink))


def test_a_bucket_of_google_that_does_not_answer_is_given_up_in_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's own limit is 15 minutes; the server here is a port that nobody listens at."""
    monkeypatch.setattr(locate, "RETRY_SECONDS", 1)

    with pytest.raises(
        StoreError, match=r'^"gs://anonymous@bucket/x\?endpoint_override=127\.0\.0\.1:1&scheme=http" cannot be listed: '
    ):
        find_files(parse_address("gs://anonymous@bucket/x?endpoint_override=127.0.0.1:1&scheme=http"))


@pytest.mark.parametrize("here", ["raw [2026]", "what?", "all*"])
@pytest.mark.parametrize("source", ["rows", "rows/*.csv", "**/*.csv", "rows/[a-b].csv", "rows/a [v1]"])
def test_a_path_with_signs_of_globs_that_exists_is_read_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, source: str
) -> None:
    folder = tmp_path / here / "rows"
    (folder / "a [v1]").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / here)
    for name in ("a.csv", "a [v1]/a.csv"):
        (folder / name).touch()

    found = find_files(parse_address(source))

    assert len(found.files) == {"**/*.csv": 2, "rows": 2}.get(source, 1)


def test_a_source_with_brackets_is_kept_apart_from_its_sink_too(tmp_path: Path) -> None:
    (tmp_path / "raw [1]").mkdir()

    with pytest.raises(UsageError, match="lies in the source"):
        check_apart(parse_address(f"{tmp_path}/raw [1]"), parse_address(f"{tmp_path}/raw [1]/out"))


def test_nothing_is_asked_of_a_bucket_but_below_the_prefix() -> None:
    """To make a folder Arrow asks for the bucket itself, which a role for one prefix may not."""

    class Bucket:
        """The part of a file system that would ask."""

        def create_dir(self, path: str) -> None:
            raise AssertionError(f"create_dir of {path}")

    write_module._make_folder(cast(fs.FileSystem, Bucket()), "bucket/prefix/versions")
