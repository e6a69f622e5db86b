"""Parquet files that mean more than they weigh: batches are small where rows are long."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from pipeline.io import StoreError, exactly
from pipeline.io.files import parquet
from pipeline.io.files.parquet import read_parquet

ZEROS = np.zeros(20_000_000, np.int64)


def batches(path: Path, *columns: str) -> list[pa.Table]:
    return list(read_parquet(fs.LocalFileSystem(), str(path), exactly(*columns), None))


def write(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False, row_group_size=2_000_000)
    return path


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    """The rows "a", `text`, `text`, …"""
    codes = np.ones(rows, np.int32)
    codes[0] = 0
    return pa.DictionaryArray.from_arrays(pa.array(codes), ["a", text])


def test_one_long_text_in_every_row_is_unpacked_a_few_rows_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", id=pa.array(range(50_000)), text=repeated("x" * 1_000_000, 50_000))
    assert path.stat().st_size < 2**20

    tables = read_parquet(fs.LocalFileSystem(), str(path), exactly("id", "text"), None)
    some = [next(tables) for _ in range(5)]

    ids = [number for table in some for number in table["id"].to_pylist()]
    assert ids == list(range(len(ids)))
    assert max(table.nbytes for table in some) <= 1.1 * parquet.BATCH_BYTES
    assert len(some[0]["text"][1].as_py()) == 1_000_000


def in_a_process(code: str, path: Path) -> str:
    """What code prints that reads `path`, its columns a, b and c, in a process without memory set aside.

    What Arrow has set aside before, by default up to a GiB, counts as the process's already.
    """
    environ = {**os.environ, "MIMALLOC_ARENA_RESERVE": str(2**16)}
    command = [sys.executable, "-c", f"{READ}\n{code}", str(path)]
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True).stdout


READ = """
import resource, sys
from pyarrow import fs
from pipeline.io import StoreError, exactly
from pipeline.io.files import parquet

parquet.UNPACKING_BYTES = 2**27
tables = parquet.read_parquet(fs.LocalFileSystem(), sys.argv[1], exactly("a", "b", "c"), None)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
"""


def test_however_many_columns_expand_the_memory_is_bounded(tmp_path: Path) -> None:
    long = repeated("x" * 1_000_000, 50_000)
    path = write(tmp_path / "x.parquet", a=long, b=long, c=long)

    assert int(in_a_process("before = peak(); next(tables); print(peak() - before)", path)) <= 1.5 * 128


def test_what_becomes_plain_text_is_bounded_too(tmp_path: Path) -> None:
    long = repeated("x" * 1_000_000, 50_000)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": long, "b": long, "c": pa.array([b"y"] * 50_000)}), path, compression="zstd")

    assert int(in_a_process("before = peak(); next(tables); print(peak() - before)", path)) <= 1.5 * 128


def test_a_row_that_is_too_large_is_an_error(tmp_path: Path) -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, len(ZEROS)], pa.int32()), pa.array(ZEROS))
    path = write(tmp_path / "x.parquet", a=lists, b=lists, c=lists)

    code = "try: next(tables)\nexcept StoreError as error: print(error)"

    assert 'x.parquet" takes more than 128 MiB to unpack, whatever is read of it at once. ' in in_a_process(code, path)


def test_what_is_not_read_makes_no_batch_smaller(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", id=pa.array(range(50_000)), text=repeated("x" * 1_000_000, 50_000))

    assert [len(table) for table in batches(path, "id")] == [32_768, 50_000 - 32_768]


@pytest.mark.parametrize("nested", ["list", "struct"])
def test_texts_within_lists_and_structs_count_too(nested: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2**20)
    texts = repeated("x" * 10_000, 4_000).cast(pa.string())
    columns = {
        "list": pa.ListArray.from_arrays(pa.array(range(0, 4_001, 2), pa.int32()), texts),
        "struct": pa.StructArray.from_arrays([texts], ["inner"]),
    }
    path = write(tmp_path / "x.parquet", value=columns[nested])

    tables = batches(path, "value")

    assert max(table.nbytes for table in tables) <= parquet.BATCH_BYTES
    assert sum(map(len, tables)) == len(columns[nested])


LONG = "x" * 100_000
EXPANDING = {
    "neighbours share their beginning": (
        {"text": pa.array([LONG] * 2_000)},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ),
    "bytes of a fixed length": ({"text": pa.array([LONG.encode()] * 2_000, pa.binary(100_000))}, {}),
    "lists of one number": (
        {"text": pa.ListArray.from_arrays(np.arange(0, 20_000_001, 1_000_000, dtype=np.int32), pa.array(ZEROS))},
        {},
    ),
}


@pytest.mark.parametrize(("columns", "options"), EXPANDING.values(), ids=EXPANDING)
def test_whatever_expands_is_unpacked_in_small_batches(
    columns: dict[str, pa.Array], options: dict[str, Any], tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", **options)
    assert (tmp_path / "x.parquet").stat().st_size < 2**20

    tables = batches(tmp_path / "x.parquet", *columns)

    assert max(table.nbytes for table in tables) <= 1.1 * parquet.BATCH_BYTES
    assert sum(map(len, tables)) == len(next(iter(columns.values())))


def test_the_process_has_its_limit_back_after_each_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", id=pa.array(range(50_000)))
    before = resource.getrlimit(resource.RLIMIT_DATA)

    for _ in read_parquet(fs.LocalFileSystem(), str(path), exactly("id"), None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_only_the_row_group_that_takes_too_much_is_read_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack = pq.ParquetFile.iter_batches

    def too_much(file: pq.ParquetFile, rows: int, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in unpack(file, rows, *args, **options):
            if rows > 4_096 and batch["id"][0].as_py() <= 80_000 <= batch["id"][-1].as_py():
                raise MemoryError
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", too_much)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": range(250_000)}), path, row_group_size=50_000)

    tables = batches(path, "id")

    assert [number for table in tables for number in table["id"].to_pylist()] == list(range(250_000))
    sizes = list(map(len, tables))
    assert (sizes.count(32_768), sizes.count(4_096)) == (6, 8)


def test_a_footer_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LARGEST_FOOTER", 2**20)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": range(20_000)}), path, row_group_size=1)

    with pytest.raises(StoreError, match=r"has a footer of \d MiB; it may have 1\. Write it with larger row groups"):
        batches(path, "id")


def test_a_file_with_fewer_rows_than_it_says_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", id=pa.array(range(10)))
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: iter(()))

    with pytest.raises(StoreError, match=r'x\.parquet" holds 0 rows where it says 10\.'):
        batches(path, "id")


def test_a_column_whose_name_has_a_dot_is_not_that_of_a_struct(tmp_path: Path) -> None:
    inner = pa.StructArray.from_arrays([pa.array(["inner"])], ["b"])
    path = write(tmp_path / "x.parquet", **{"a": inner, "a.b": pa.array(["plain"])})

    (table,) = batches(path, "a.b")

    assert table.to_pylist() == [{"a.b": "plain"}]
