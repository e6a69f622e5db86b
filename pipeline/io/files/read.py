"""Reading files in Ray's tasks: small files share a task, large Parquet files are divided."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from urllib.parse import unquote

import pyarrow as pa
import ray.data
from pyarrow import fs

from nightprice.errors import ContractError
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io.files.errors import reading
from pipeline.io.files.locate import format_of
from pipeline.io.files.parquet import open_parquet, read_parquet
from pipeline.io.files.text import read_csv, read_json_lines
from pipeline.io.stores import Columns
from pipeline.io.table_rows import with_source_file
from transforms.clean import as_text

# Small files are read together in one task; a Parquet file of more than the largest task is read by row groups.
# Between two tasks a worker idles for a moment, so tasks are as large as leaves each CPU a few of them: 48 MiB instead
# of 16 gave 18 % more rows a second. Larger still would cost memory: Ray Data holds what a task has written until its
# end.
SMALLEST_TASK_BYTES = 16 * 2**20
LARGEST_TASK_BYTES = 36 * 2**20
TASKS_PER_CPU = 4
FOOTERS_AT_ONCE = 16
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

Reader = Callable[[fs.FileSystem, str, Columns], Iterator[pa.Table]]


@dataclass(frozen=True)
class FileSlice:
    """A file to read, or some row groups of a Parquet file."""

    path: str
    format: str
    size: int
    """In bytes; of row groups, their share of the file."""
    row_groups: list[int] | None = None
    """None: all of the file."""


def read_files(
    filesystem: fs.FileSystem, files: Sequence[fs.FileInfo], columns: Columns
) -> tuple[ray.data.Dataset, int]:
    """The rows of files, lazily (`source_file` holds the path of each row's file), and how many tasks read them."""
    size = task_bytes(sum(file.size for file in files))
    # Each footer is a request to the store, and there may be thousands.
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        slices = chain.from_iterable(pool.map(lambda file: _slices(filesystem, file, size), files))
        tasks = _packed(list(slices), size)
    rows = [{"slices": json.dumps([asdict(part) for part in task])} for task in tasks]
    read = partial(_read_task, filesystem=filesystem, columns=columns)
    return map_tables(ray.data.from_items(rows, override_num_blocks=len(rows)), read, batch_size=1), len(rows)


def task_bytes(total: int) -> int:
    """How much of so many bytes of files one task reads."""
    cpus = max(float(ray.cluster_resources().get("CPU", 1)), 1)
    return min(max(round(total / (TASKS_PER_CPU * cpus)), SMALLEST_TASK_BYTES), LARGEST_TASK_BYTES)


def _slices(filesystem: fs.FileSystem, file: fs.FileInfo, task_bytes: int) -> list[FileSlice]:
    kind = format_of(file.path)
    if kind != "parquet" or file.size <= LARGEST_TASK_BYTES:
        return [FileSlice(file.path, kind, file.size)]
    with reading(file.path), filesystem.open_input_file(file.path) as opened, open_parquet(opened, file.path) as whole:
        groups = list(range(whole.num_row_groups))
    group_bytes = file.size // max(len(groups), 1)
    step = max(1, task_bytes // max(group_bytes, 1))
    taken = [groups[start : start + step] for start in groups[::step]]
    return [FileSlice(file.path, kind, group_bytes * len(some), some) for some in taken]


def _packed(slices: Sequence[FileSlice], task_bytes: int) -> list[list[FileSlice]]:
    """The slices in their order, divided into tasks of about the same size."""
    total = max(sum(part.size for part in slices), 1)
    count = math.ceil(total / task_bytes)
    tasks: list[list[FileSlice]] = [[] for _ in range(count)]
    before = 0
    for part in slices:
        tasks[min((before + part.size // 2) * count // total, count - 1)].append(part)
        before += part.size
    return [task for task in tasks if task]


def _read_task(task: pa.Table, filesystem: fs.FileSystem, columns: Columns) -> Iterator[pa.Table]:
    slices = [FileSlice(**part) for text in task["slices"].to_pylist() for part in json.loads(text)]
    mixed = _mixed_columns(filesystem, slices)
    for part in slices:
        for table in _read_slice(part, filesystem, columns):
            yield _as_texts(table, mixed & set(table.column_names))


def _mixed_columns(filesystem: fs.FileSystem, slices: Sequence[FileSlice]) -> set[str]:
    """The columns that files of one task hold in different types, such as ids as text and as integers."""
    paths = {part.path for part in slices}
    parquet = {part.path for part in slices if part.format == "parquet"}
    if len(paths) < 2 or not parquet:
        return set()
    # All other formats are read as text.
    others = {pa.string()} if parquet < paths else set()
    types: dict[str, set[pa.DataType]] = {}
    for path in parquet:
        with reading(path), filesystem.open_input_file(path) as file, open_parquet(file, path) as opened:
            for column in opened.schema_arrow:
                types.setdefault(column.name, set(others)).add(column.type)
    return {name for name, kinds in types.items() if len(kinds) > 1}


def _as_texts(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The named columns as plain text: Ray Data joins the tables of a task, and can't if their types differ."""
    for name in names:
        table = table.set_column(table.column_names.index(name), name, as_text(table[name]).cast(pa.string()))
    return table


def _read_slice(part: FileSlice, filesystem: fs.FileSystem, columns: Columns) -> Iterator[pa.Table]:
    readers: dict[str, Reader] = {
        "csv": read_csv,
        "jsonl": read_json_lines,
        "parquet": partial(read_parquet, row_groups=part.row_groups),
    }
    chosen = _FileColumns(columns, part.path)
    with reading(part.path):
        for table in readers[part.format](filesystem, part.path, chosen):
            yield with_source_file(chosen.completed(table), part.path)


class _FileColumns:
    """Chooses the columns of a file. Columns are also what its folders name (`city=Oslo/part.csv`), and those whose
    names differ from the expected ones in case and blanks only.
    """

    def __init__(self, columns: Columns, path: str) -> None:
        self._columns = columns
        self._of_folders = _folder_values(path)
        self._added: list[str] = []
        self._expected: dict[str, str] = {}

    def __call__(self, available: Sequence[str], where: str) -> list[str]:
        """The columns to read, as the file calls them."""
        chosen = self._choose([*available, *(name for name in self._of_folders if name not in available)], where)
        self._added = [name for name in chosen if name not in available]
        return [name for name in chosen if name in available]

    def _choose(self, available: Sequence[str], where: str) -> list[str]:
        try:
            return self._columns(available, where)
        except ContractError:
            written = {_as_expected(name): name for name in available}
            with suppress(ContractError):
                chosen = self._columns(list(written), where)
                if len(written) == len(available):
                    self._expected = {written[name]: name for name in chosen}
                    return list(self._expected)
            raise

    def completed(self, table: pa.Table) -> pa.Table:
        """A table of the file with what its folders say, and with the expected names."""
        for name in self._added:
            values = pa.repeat(pa.scalar(self._of_folders[name], pa.string()), len(table))
            table = table.append_column(name, values)
        return table.rename_columns([self._expected.get(name, name) for name in table.column_names])


def _folder_values(path: str) -> dict[str, str | None]:
    """What the folders of a path say about its rows, as Hive and Spark write it.

    >>> _folder_values("/raw/year=2024/city=S%C3%A3o Paulo/part-0.csv")
    {'year': '2024', 'city': 'São Paulo'}
    """
    parts = [name.partition("=") for name in path.split("/")[:-1] if "=" in name]
    return {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, _, value in parts}


def _as_expected(name: str) -> str:
    """A name of a column as contracts write them.

    >>> _as_expected(" Ship Date")
    'ship_date'
    """
    return re.sub(r"[\s_-]+", "_", name.strip()).lower()
