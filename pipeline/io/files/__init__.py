"""Files as a store: CSV, Parquet and JSON lines in; versioned Parquet folders out. Local, S3, GCS, Azure."""

import errno
import json
import logging
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from nightprice.address import without_password as shown
from nightprice.errors import ContractError, NightpriceError, UsageError
from pipeline.cluster.arrow_tasks import map_tables, write_parts
from pipeline.errors import GateRefused
from pipeline.io.files.text import decoded, read_csv, read_json_lines
from pipeline.io.stores import Columns, Manifest, Seal, StoreError, scheme_of, sink, source
from pipeline.io.tagged_blocks import REJECTED, PartsSink
from transforms.clean import SOURCE_FILE, as_text

logger = logging.getLogger(__name__)

SCHEMES = ("file", "s3", "gs", "abfs", "abfss")
MANIFEST = "manifest.json"
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), "jsonl"),
}
# Small files are read together in one task; a Parquet file of more than the largest task is read by row groups.
# Between two tasks a
# worker idles for a moment, so tasks are as large as leaves each CPU a few of them: 48 MiB in place of 16 gave 18 %
# more rows a second.
# Larger still would cost memory: Ray Data holds what a task has written until its end.
SMALLEST_TASK_BYTES = 16 * 2**20
LARGEST_TASK_BYTES = 36 * 2**20
TASKS_PER_CPU = 4
BATCH_ROWS = 32_768
# What a sink keeps: the live version and the ones before it, for a look back.
KEPT_VERSIONS = 3
# A version that began within this time is left alone, whatever became of it: another run may be writing it.
LONGEST_RUN = timedelta(days=1)
_VERSION_TIME = "%Y%m%dT%H%M%SZ"
RETRY_SECONDS = 60
# Of what a library says about a file.
LONGEST_REASON = 300


@dataclass(frozen=True)
class Piece:
    """A file to read, or some row groups of a Parquet file."""

    path: str
    format: str
    size: int
    row_groups: list[int] | None = None


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """The Arrow filesystem of an address and the path in it."""
    try:
        if scheme_of(uri) == "file":
            path = uri.removeprefix("file://")
            return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
        filesystem, path = fs.FileSystem.from_uri(_impatient(uri))
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        reason = str(error).replace(uri, shown(uri))
        raise StoreError(
            f'"{shown(uri)}" is no address of files: {reason}. Write it like data/*.csv.gz or s3://bucket/folder.'
        ) from error
    return filesystem, path


def _impatient(uri: str) -> str:
    """An address in Google's cloud with a limit of its retries, whose default of 15 minutes looks like a standstill."""
    if scheme_of(uri) != "gs" or "retry_limit_seconds" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={RETRY_SECONDS}"


def below(uri: str, path: str) -> str:
    """The address of what lies below another one.

    >>> below("s3://bucket/dataset/?region=eu-west-1", "versions/1"), below("odd?name", "a")
    ('s3://bucket/dataset/versions/1?region=eu-west-1', 'odd?name/a')
    """
    folder, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{folder.rstrip('/')}/{path}{mark}{query}"


def check_apart(source: str, sink: str) -> None:
    """Raise UsageError for a sink in the folder of its source: the next run would read what this one writes."""
    if not {scheme_of(source), scheme_of(sink)} <= set(SCHEMES):
        return
    (reads, folder), (writes, root) = filesystem_of(source), filesystem_of(sink)
    if reads == writes and not _is_glob(folder) and f"{root.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/"):
        raise UsageError(
            f'The sink "{shown(sink)}" lies in the source "{shown(source)}": the next run would read what this '
            "one writes. "
            "Write to a folder beside it."
        )


def listing(uri: str) -> tuple[fs.FileSystem, list[fs.FileInfo]]:
    """The data files at an address: a file, a folder (with all below it) or a glob such as `data/*.csv.gz`.

    Raises StoreError when there is none.
    """
    filesystem, path = filesystem_of(uri)
    pattern = path if _is_glob(path) else None
    base = _without_glob(path) if pattern else path
    try:
        info = filesystem.get_file_info(base)
        if info.type == fs.FileType.File:
            found = [info]
        else:
            found = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    except OSError as error:
        raise StoreError(
            f'"{shown(uri)}" cannot be listed: {_reason(error)}. Check the address and your rights to it.'
        ) from error
    files = [
        item for item in found if item.type == fs.FileType.File and (pattern is None or _matches(item.path, pattern))
    ]
    if pattern is None and len(files) == 1 and files[0].path == info.path:
        _format_of(info.path)
        return filesystem, files
    readable = [item for item in files if _known_format(item.path) and not _is_hidden(item.path, base)]
    if not readable:
        there = (
            f"{len(files)} files of other kinds are there"
            if files
            else ("nothing matches" if pattern else "nothing is there")
        )
        raise StoreError(
            f'"{shown(uri)}": no data file found ({there}). Expected files ending in {", ".join(FORMATS)}.'
        )
    return filesystem, sorted(readable, key=lambda item: item.path)


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _without_glob(path: str) -> str:
    parts = path.split("/")
    stop = next(position for position, part in enumerate(parts) if _is_glob(part))
    return "/".join(parts[:stop]) or "/"


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a glob, part by part: `*` stops at a slash, `**` does not."""
    if "**" in pattern:
        return fnmatchcase(path, pattern.replace("**/", "*"))
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _is_hidden(path: str, base: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.removeprefix(base).split("/"))


def _known_format(path: str) -> str | None:
    name = path.lower()
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def _format_of(path: str) -> str:
    kind = _known_format(path)
    if kind is None:
        raise StoreError(f'"{path}" is no data file of a known kind. Expected an ending of {", ".join(FORMATS)}.')
    return kind


def _reason(error: BaseException) -> str:
    """The first line of an error, fit for a terminal: Arrow quotes rows, and they may be binary."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text ({error.reason} at byte {error.start:,})"
    line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    shown = "".join(sign if sign.isprintable() and sign != "\N{REPLACEMENT CHARACTER}" else "?" for sign in line)
    return shown if len(shown) <= LONGEST_REASON else f"{shown[:LONGEST_REASON]} …"


@source(*SCHEMES)
def read_files(uri: str, columns: Columns) -> ray.data.Dataset:
    """The rows of all data files at an address; small files share a task, large Parquet files are divided."""
    filesystem, files = listing(uri)
    size = _task_bytes(sum(item.size for item in files))
    tasks = _pack([piece for item in files for piece in _pieces(filesystem, item, size)], size)
    rows = [{"pieces": json.dumps([asdict(piece) for piece in task])} for task in tasks]
    read = partial(_read_task, filesystem=filesystem, columns=columns)
    return map_tables(ray.data.from_items(rows, override_num_blocks=len(rows)), read, batch_size=1)


def _task_bytes(total: int) -> int:
    cpus = max(float(ray.cluster_resources().get("CPU", 1)), 1)
    return min(max(round(total / (TASKS_PER_CPU * cpus)), SMALLEST_TASK_BYTES), LARGEST_TASK_BYTES)


def _pieces(filesystem: fs.FileSystem, item: fs.FileInfo, task_bytes: int) -> list[Piece]:
    kind = _format_of(item.path)
    if kind != "parquet" or item.size <= LARGEST_TASK_BYTES:
        return [Piece(item.path, kind, item.size)]
    with _readable(item.path):
        metadata = pq.read_metadata(item.path, filesystem=filesystem)
    share = item.size // max(metadata.num_row_groups, 1)
    step = max(1, task_bytes // max(share, 1))
    groups = range(metadata.num_row_groups)
    return [
        Piece(item.path, kind, share * len(groups[at : at + step]), list(groups[at : at + step]))
        for at in groups[::step]
    ]


def _pack(pieces: Sequence[Piece], task_bytes: int) -> list[list[Piece]]:
    """The pieces in their order, divided into tasks of about the same size."""
    total = max(sum(piece.size for piece in pieces), 1)
    count = math.ceil(total / task_bytes)
    tasks: list[list[Piece]] = [[] for _ in range(count)]
    before = 0
    for piece in pieces:
        tasks[min((before + piece.size // 2) * count // total, count - 1)].append(piece)
        before += piece.size
    return [task for task in tasks if task]


def _read_task(task: pa.Table, filesystem: fs.FileSystem, columns: Columns) -> Iterator[pa.Table]:
    pieces = [Piece(**piece) for text in task["pieces"].to_pylist() for piece in json.loads(text)]
    mixed = _mixed_columns(filesystem, pieces)
    for piece in pieces:
        for table in _read_piece(piece, filesystem, columns):
            yield _as_texts(table, mixed & set(table.column_names))


def _mixed_columns(filesystem: fs.FileSystem, pieces: Sequence[Piece]) -> set[str]:
    """The columns that files of one task hold in different types, such as ids as text and as integers."""
    paths = {piece.path for piece in pieces if piece.format == "parquet"}
    if len({piece.path for piece in pieces}) < 2 or not paths:
        return set()
    types: dict[str, set[pa.DataType]] = {}
    for path in paths:
        with _readable(path):
            for item in pq.read_schema(path, filesystem=filesystem):
                types.setdefault(item.name, {pa.string()} if len(paths) < len(pieces) else set()).add(item.type)
    return {name for name, found in types.items() if len(found) > 1}


def _as_texts(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The named columns as plain text: Ray Data joins the tables of a task, and can't if their types differ."""
    for name in names:
        table = table.set_column(table.column_names.index(name), name, as_text(table[name]).cast(pa.string()))
    return table


READERS = {"csv": read_csv, "jsonl": read_json_lines}


def _read_piece(piece: Piece, filesystem: fs.FileSystem, columns: Columns) -> Iterator[pa.Table]:
    with _readable(piece.path):
        reader = (
            partial(_read_parquet, row_groups=piece.row_groups) if piece.format == "parquet" else READERS[piece.format]
        )
        for table in reader(filesystem, piece.path, columns):
            where = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [piece.path])
            yield table.append_column(SOURCE_FILE, where)


class _readable:
    """Turns what a reader raises about a file into one StoreError that names the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError, EOFError, ValueError)) and not isinstance(
            error, NightpriceError
        ):
            raise StoreError(
                f'"{self._path}" cannot be read: {_reason(error)}. Replace the file or leave it out of the source.'
            ) from error


def _read_parquet(
    filesystem: fs.FileSystem, path: str, columns: Columns, row_groups: list[int] | None
) -> Iterator[pa.Table]:
    with filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
        chosen = columns(parquet.schema_arrow.names, path)
        groups = range(parquet.metadata.num_row_groups) if row_groups is None else row_groups
        if not parquet.metadata.num_rows:
            yield parquet.schema_arrow.empty_table().select(chosen)
        for batch in parquet.iter_batches(BATCH_ROWS, list(groups), chosen, use_threads=False) if groups else ():
            yield _without_binary(pa.Table.from_batches([batch]))


def _without_binary(table: pa.Table) -> pa.Table:
    """Texts that a file does not declare as such: as those of a CSV."""
    if not any(map(_is_binary, table.schema.types)):
        return table
    columns = {name: table[name] for name in table.column_names}
    return decoded(
        pa.table(
            {
                name: column if _is_binary(column.type) else as_text(column).cast(pa.binary())
                for name, column in columns.items()
            }
        )
    )


def _is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def new_version(moment: datetime | None = None) -> str:
    """A name for a version, of a dataset or a model, that sorts by time (default: now)."""
    return f"{moment or datetime.now(UTC):{_VERSION_TIME}}-{uuid.uuid4().hex[:6]}"


@sink(*SCHEMES)
def write_files(dataset: ray.data.Dataset, uri: str, seal: Seal) -> Manifest:
    """Write `versions/VERSION/{accepted,rejected}/*.parquet`, then publish them by `manifest.json`, atomically.

    Until then, and if anything fails, the version that the old manifest names stays live. A refused version keeps
    its rejected rows; a failed one is removed.
    """
    filesystem, root = filesystem_of(uri)
    version = new_version()
    folder = f"{root}/versions/{version}"
    parts = PartsSink(partial(_write_part, filesystem, folder))
    try:
        with _writing(folder):
            filesystem.create_dir(folder)
        write_parts(dataset, parts)
        with _writing(folder):
            _reconcile(filesystem, folder, parts.tally.written)
        manifest = seal(parts.tally, version, f"{folder}/{REJECTED}")
    except BaseException as error:
        with _unimportant("What the failed run wrote could not be removed"):
            _remove(filesystem, f"{folder}/accepted" if isinstance(error, GateRefused) else folder)
        raise
    with _writing(root):
        _publish(filesystem, f"{root}/{MANIFEST}", manifest)
    with _unimportant("Published, but old versions could not be removed"):
        _prune(filesystem, f"{root}/versions", version)
    return manifest


@contextmanager
def _writing(where: str) -> Iterator[None]:
    """Turns what a store raises into one StoreError; a full disk stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise StoreError(
            f'"{where}" cannot be written: {_reason(error)}. Check the address and your rights to it.'
        ) from error


@contextmanager
def _unimportant(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s.", what, _reason(error))


def _write_part(filesystem: fs.FileSystem, folder: str, part: str, table: pa.Table, task: str) -> tuple[str, int]:
    path = f"{folder}/{part}/{task}.parquet"
    with _writing(folder):
        filesystem.create_dir(f"{folder}/{part}")
        pq.write_table(table, path, filesystem=filesystem, compression="zstd", row_group_size=131_072)
    return path, len(table)


def _reconcile(filesystem: fs.FileSystem, folder: str, written: list[tuple[str, int]]) -> None:
    """Exactly the files that succeeded tasks wrote must lie in the folder; what a killed task left beside them goes."""
    there = {
        item.path
        for item in filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
        if item.type == fs.FileType.File
    }
    named = {path for path, _ in written}
    if missing := named - there:
        raise StoreError(
            f"{len(missing)} of {len(named)} written files are gone, such as {min(missing)}. Run it again; "
            "nothing was published."
        )
    for path in there - named:
        filesystem.delete_file(path)


def _publish(filesystem: fs.FileSystem, path: str, manifest: Manifest) -> None:
    """Put the manifest in its place in one step: readers see the old one or the new one."""
    data = json.dumps(manifest, indent=2, ensure_ascii=False).encode()
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _remove(filesystem: fs.FileSystem, folder: str) -> None:
    if filesystem.get_file_info(folder).type == fs.FileType.Directory:
        filesystem.delete_dir(folder)


def _prune(filesystem: fs.FileSystem, versions: str, live: str) -> None:
    """Remove the versions before the last ones, but none that began within a day: a run that writes it may be going
    on.
    """
    names = sorted(
        item.base_name
        for item in filesystem.get_file_info(fs.FileSelector(versions))
        if item.type == fs.FileType.Directory
    )
    settled = f"{datetime.now(UTC) - LONGEST_RUN:{_VERSION_TIME}}"
    for name in [name for name in names if name <= live][:-KEPT_VERSIONS]:
        if name < settled:
            _remove(filesystem, f"{versions}/{name}")


def read_manifest(uri: str) -> Manifest:
    """The manifest of the live version at an address; StoreError if there is none."""
    filesystem, root = filesystem_of(uri)
    path = f"{root}/{MANIFEST}"
    try:
        with filesystem.open_input_stream(path) as stream:
            manifest: dict[str, Any] = json.loads(stream.read())
    except FileNotFoundError as error:
        raise StoreError(
            f'"{shown(uri)}" is no processed dataset: there is no {MANIFEST}. Make one with `nightprice process`.'
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(
            f'"{path}" cannot be read: {_reason(error)}. Make the dataset anew with `nightprice process`.'
        ) from error
    if "version" not in manifest or "rows" not in manifest:
        raise ContractError(f'"{path}" is no manifest of a dataset: "version" or "rows" is missing.')
    return manifest
