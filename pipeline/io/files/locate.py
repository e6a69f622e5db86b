"""Which files an address names: file systems, folders, globs, formats."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from nightprice.address import Address, parse_address
from nightprice.errors import UsageError, printable
from pipeline.io.files.errors import reason_of
from pipeline.io.files.kinds import ADVICE
from pipeline.io.stores import AddressError, StoreError
from pipeline.manifests import SourceDescription

SCHEMES = ("file", "s3", "gs", "abfs", "abfss")
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), "jsonl"),
}
RETRY_SECONDS = 60
# How many of the files that are left out a warning names; the manifest has all.
LISTED_FILES = 5

logger = logging.getLogger(__name__)


def filesystem_of(address: Address) -> tuple[fs.FileSystem, str]:
    """The Arrow file system of an address and the path in it; StoreError if Arrow knows none."""
    try:
        if address.scheme == "file":
            return fs.LocalFileSystem(), str(Path(address.parts.path).expanduser().absolute())
        filesystem, path = fs.FileSystem.from_uri(_with_retry_limit(address))
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        reason = str(error).replace(address.text, address.display)
        raise AddressError(
            f'"{address}" is not an address of files: {reason}. Write it like data/*.csv.gz or s3://bucket/folder.'
        ) from error
    return filesystem, path


def _with_retry_limit(address: Address) -> str:
    """The URL, in Google's cloud with a limit of its retries: by default they go on for 15 minutes."""
    if address.scheme != "gs" or "retry_limit_seconds" in address.parts.query:
        return address.text
    return f"{address.text}{'&' if address.parts.query else '?'}retry_limit_seconds={RETRY_SECONDS}"


def folder_of(address: Address) -> Address:
    """The folder of a Delta Lake table; any other address as it is.

    >>> folder_of(parse_address("delta:///data/my%20table"))
    Address('file:///data/my%20table')
    >>> folder_of(parse_address("delta+s3://bucket/table?version=7"))
    Address('s3://bucket/table')
    """
    kind, _, scheme = address.scheme.partition("+")
    path = address.text.partition(":")[2].partition("?")[0]
    return parse_address(f"{scheme or 'file'}:{path}") if kind == "delta" else address


def check_apart(source: Address, sink: Address) -> None:
    """Raise UsageError for a sink in the folder of its source: the next run would read what this one writes."""
    origin, target = folder_of(source), folder_of(sink)
    if not {origin.scheme, target.scheme} <= set(SCHEMES):
        return
    (reads, folder), (writes, root) = filesystem_of(origin), filesystem_of(target)
    if (
        reads == writes
        and _fixed_part(reads, folder) == folder
        and f"{root.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
    ):
        raise UsageError(
            f'The sink "{sink}" lies in the source "{source}": the next run would read what this one writes. '
            "Write to a folder beside it."
        )


@dataclass(frozen=True)
class FoundFiles:
    """The files at an address, by name."""

    filesystem: fs.FileSystem
    files: list[fs.FileInfo]
    left_out: list[str]
    """Paths of files whose endings name no known format."""


def find_files(address: Address) -> FoundFiles:
    """The data files at an address: a file, a folder with all below it, or a glob such as `data/*.csv.gz`.

    Raises StoreError when there is none.
    """
    filesystem, path = filesystem_of(address)
    try:
        base = _fixed_part(filesystem, path)
        info = filesystem.get_file_info(base)
        if info.type == fs.FileType.File:
            infos = [info]
        else:
            infos = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    except OSError as error:
        raise StoreError(
            f'"{address}" cannot be listed: {reason_of(error)}. Check the address and your rights to it.'
        ) from error
    if info.type == fs.FileType.File and base == path:
        format_of(path)
        return FoundFiles(filesystem, infos, [])
    matching = [item for item in infos if item.type == fs.FileType.File and _matches(item.path, path, base)]
    visible = [item for item in matching if not _is_hidden(item.path, base)]
    files = [item for item in visible if _known_format(item.path)]
    if not files:
        raise AddressError(
            f'"{address}": no data file found ({_what_else(matching, base != path)}). '
            f"Expected files ending in {', '.join(FORMATS)}."
        )
    left_out = sorted(item.path for item in visible if not _known_format(item.path))
    return FoundFiles(filesystem, sorted(files, key=lambda item: item.path), left_out)


def warn_of_left_out(address: Address, paths: Sequence[str]) -> None:
    """Log a warning that names the files of a source that are not read, if there are any."""
    if paths:
        more = f" and {len(paths) - LISTED_FILES:,} more" if len(paths) > LISTED_FILES else ""
        logger.warning(
            '"%s": %s left out, whose endings name no format of data: %s%s. Those that are read end in %s.',
            address,
            "1 file is" if len(paths) == 1 else f"{len(paths):,} files are",
            printable(", ".join(paths[:LISTED_FILES])),
            more,
            ", ".join(FORMATS),
        )


def _what_else(matching: Sequence[fs.FileInfo], is_glob: bool) -> str:
    if matching:
        return f"{len(matching)} files of other kinds are there"
    return "nothing matches" if is_glob else "nothing is there"


def describe_files(files: Sequence[fs.FileInfo]) -> list[SourceDescription]:
    """Path, size and time of change of each file."""
    return [
        {"path": item.path, "size": item.size, "modified": item.mtime.isoformat() if item.mtime else None}
        for item in files
    ]


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _fixed_part(filesystem: fs.FileSystem, path: str) -> str:
    """The folder that holds all that a glob can match; a path that is not a glob as it is.

    A name with a sign of globs that exists as it stands is no glob, such as that of the current folder.
    """
    names = path.split("/")
    for position, name in enumerate(names):
        if _is_glob(name):
            as_it_stands = filesystem.get_file_info("/".join(names[: position + 1]))
            if as_it_stands.type == fs.FileType.NotFound:
                return "/".join(names[:position]) or "/"
    return path


def _matches(path: str, pattern: str, base: str) -> bool:
    """Whether a path below `base` fits a glob, name by name: `*` stops at a slash, `**` does not."""
    if pattern == base:
        return True
    path, pattern = path.removeprefix(base), pattern.removeprefix(base)
    if "**" in pattern:
        return fnmatchcase(path, pattern.replace("**/", "*"))
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _is_hidden(path: str, base: str) -> bool:
    return any(name.startswith((".", "_")) for name in path.removeprefix(base).split("/"))


def _known_format(path: str) -> str | None:
    name = path.lower()
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def format_of(path: str) -> str:
    """The format of a file, by its ending; StoreError if none is known."""
    kind = _known_format(path)
    if kind is None:
        advice = next((f" {text}" for ending, text in ADVICE.items() if path.lower().endswith(ending)), "")
        raise AddressError(
            f'"{path}" is not a data file of a known kind.{advice} Expected an ending of {", ".join(FORMATS)}.'
        )
    return kind
