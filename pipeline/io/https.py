"""Files on the web: downloaded once to a cache, then read as local files.

    https://data.insideairbnb.com/united-states/ny/new-york-city/2021-12-04/data/listings.csv.gz

A download that broke off goes on where it stopped, in the same run or the next; a file that is in the cache is only
asked about (a conditional request). The cache lies on the machine of the command: on a cluster of several machines,
put it on a disk that all of them see, or read from a bucket.
"""

import hashlib
import json
import logging
import os
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
import ray.data
from filelock import FileLock

from nightprice.address import without_password
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io import files
from pipeline.io.stores import Columns, StoreError, source
from transforms.clean import SOURCE_FILE

logger = logging.getLogger(__name__)

SCHEMES = ("http", "https")
CHUNK = 1 << 18
TIMEOUT_S = 60
# So often in a row a server may break off without a single new byte.
TRIES = 4
PAUSE_S = 2.0


@dataclass(frozen=True)
class Copy:
    """What is known of a file in the cache: by its validators the server tells whether it has changed."""

    url: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What proves that a part belongs to the same file; a weak etag does not."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@source(*SCHEMES)
def read_https(uri: str, columns: Columns) -> ray.data.Dataset:
    """The rows of a file on the web; `source_file` holds its address. StoreError says why it can't be had."""
    path, copy = fetch(uri)

    def choose(there: Sequence[str], where: str) -> list[str]:
        return columns(there, copy.url)

    def with_address(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index(SOURCE_FILE)
        address = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [copy.url])
        return table.set_column(position, SOURCE_FILE, address)

    rows = files.read_files(str(path), choose)
    return map_tables(rows, with_address, udf_modifying_row_count=False)


def describe(uri: str) -> dict[str, Any]:
    """Address, size and validators of a file on the web, for the manifest of a dataset; downloads it if need be."""
    _, copy = fetch(uri)
    return {"path": copy.url, "size": copy.size, "etag": copy.etag, "modified": copy.modified}


def fetch(uri: str, cache: Path | None = None) -> tuple[Path, Copy]:
    """The local copy of a file on the web, downloaded unless the cache holds what the server still has."""
    shown = without_password(uri)
    name = Path(unquote(urlsplit(uri).path)).name
    if not name.lower().endswith(tuple(files.FORMATS)):
        raise StoreError(
            f'"{shown}" is no data file of a known kind. Expected an ending of {", ".join(files.FORMATS)}.'
        )
    folder = (cache or _cache()) / hashlib.sha256(uri.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            return folder / name, _Download(uri, shown, folder / name).run()
    except OSError as error:
        raise StoreError(
            f'"{shown}" cannot be kept in {folder}: {error.strerror or error}. Free space, or set NIGHTPRICE_CACHE_DIR.'
        ) from error


def _cache() -> Path:
    from pipeline.settings import load_settings

    return load_settings().cache_dir / "downloads"


class _Download:
    """One file: `path` when it is whole, `path.part` until then, and beside each a note of what it is."""

    def __init__(self, uri: str, shown: str, path: Path) -> None:
        self._uri = uri
        self._shown = shown
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def run(self) -> Copy:
        there = _noted(self._path)
        tries = TRIES
        while True:
            before = _size(self._part)
            try:
                return self._attempt(there)
            except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                if isinstance(error, HTTPError) and error.code < 500 and error.code != 429:
                    raise StoreError(
                        f'"{self._shown}": the server answers {error.code} {error.reason}. {_mend(error.code)}'
                    ) from error
                tries = tries - 1 if _size(self._part) <= before else TRIES
                if not tries:
                    return self._without_server(there, error)
                time.sleep(PAUSE_S * (TRIES - tries))

    def _without_server(self, there: Copy | None, error: Exception) -> Copy:
        if there is None:
            reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
            raise StoreError(
                f'"{self._shown}" cannot be downloaded: {reason or type(error).__name__}. Check the address and '
                "the network; "
                "run it again to go on where it stopped."
            ) from error
        logger.warning(
            '"%s" cannot be reached (%s): the copy in the cache is read, %s.', self._shown, error, self._path
        )
        return there

    def _attempt(self, there: Copy | None) -> Copy:
        """Ask for the file, or for its rest; the answer decides which it is."""
        begun = _noted(self._part)
        headers = {"Accept-Encoding": "identity", "User-Agent": "nightprice"}
        if begun and begun.validator:
            headers |= {"Range": f"bytes={_size(self._part)}-", "If-Range": begun.validator}
        elif there is not None:
            headers |= (
                {"If-None-Match": there.etag}
                if there.etag
                else {"If-Modified-Since": there.modified}
                if there.modified
                else {}
            )
        try:
            response: HTTPResponse = urlopen(Request(self._uri, headers=headers), timeout=TIMEOUT_S)
        except HTTPError as error:
            if error.code == 304 and there is not None:
                return there
            if error.code == 416 and begun is not None:
                self._part.unlink(missing_ok=True)
                return self._attempt(there)
            raise
        with closing(response):
            return self._store(response)

    def _store(self, response: HTTPResponse) -> Copy:
        start = _start_of(response)
        length = response.headers.get("Content-Length")
        copy = Copy(
            self._shown,
            start + int(length) if length else None,
            response.headers.get("ETag"),
            response.headers.get("Last-Modified"),
        )
        if start > _size(self._part):
            raise ConnectionError(f"the server left out the bytes before {start:,}")
        if start == 0:
            _note(self._part, copy)
        with open(self._part, "r+b" if start else "wb") as file, _progress(self._path.name, copy.size) as progress:
            file.truncate(start)
            file.seek(start)
            progress.update(progress.task_ids[0], completed=start)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(progress.task_ids[0], len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if copy.size is not None and _size(self._part) < copy.size:
            raise ConnectionError(f"the server broke off after {_size(self._part):,} of {copy.size:,} bytes")
        return self._finish(Copy(copy.url, _size(self._part), copy.etag, copy.modified))

    def _finish(self, copy: Copy) -> Copy:
        # In this order: a note beside an older file would vouch for the wrong bytes.
        _note_path(self._path).unlink(missing_ok=True)
        os.replace(self._part, self._path)
        _note(self._path, copy)
        _note_path(self._part).unlink(missing_ok=True)
        return copy


def _start_of(response: HTTPResponse) -> int:
    """The first byte that an answer holds: 206 tells it, any other answer is the whole file."""
    if response.status != 206:
        return 0
    return int(response.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])


def _mend(code: int) -> str:
    if code in (401, 403):
        return "Ask for access, or download the file by hand and name its path."
    if code in (404, 410):
        return "Check the address; Inside Airbnb moves older files away."
    return "Try again later."


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note(path: Path, copy: Copy) -> None:
    temporary = path.with_name(f"{path.name}.json.new")
    temporary.write_text(json.dumps(asdict(copy)))
    os.replace(temporary, _note_path(path))


def _noted(path: Path) -> Copy | None:
    """What the note beside a file says, if both are there and fit."""
    if not path.exists() or not _note_path(path).exists():
        return None
    copy = Copy(**json.loads(_note_path(path).read_text()))
    whole = not path.name.endswith(".part")
    return None if whole and copy.size != _size(path) else copy


def _progress(name: str, size: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    progress.add_task(name, total=size)
    return progress
