"""Files on the web: downloaded once to a cache, then read as local files.

    https://host/path/records.csv.gz

A download that broke off continues where it stopped, in the same run or the next; for a file that is in the cache, the
server is only asked whether it has changed (a conditional request). The cache is on the machine of the command: on a
cluster of several machines, put it on a disk that all of them see, or read from a bucket.
"""

import hashlib
import json
import logging
import os
import ssl
import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

from filelock import FileLock
from pyarrow import fs

from nightprice.address import Address
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.io.files.locate import FORMATS
from pipeline.io.files.read import read_files
from pipeline.io.stores import Columns, Source, Store, StoreError
from pipeline.io.table_rows import with_source_file
from pipeline.manifests import SourceDescription

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
TIMEOUT_S = 60
# Attempts in a row without a single new byte.
TRIES = 4
PAUSE_S = 2.0


@dataclass(frozen=True)
class CachedFile:
    """What is known of a file in the cache: by its validators the server tells whether it has changed."""

    url: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What proves that a part belongs to the same file; a weak etag does not."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def if_changed(self) -> dict[str, str]:
        """The headers of a request that is answered 304 if the file is still the same."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}


class HttpsStore(Store):
    """Files on the web, to read."""

    def read(self, address: Address, columns: Columns) -> Source:
        """The rows of a file on the web; `source_file` holds its address. StoreError says why it can't be had."""
        path, cached = fetch(address)
        filesystem = fs.LocalFileSystem()
        rows, tasks = read_files(
            filesystem, [filesystem.get_file_info(str(path))], lambda available, _: columns(available, cached.url)
        )
        rows = map_tables(rows, partial(with_source_file, where=cached.url), udf_modifying_row_count=False)
        description: SourceDescription = {
            "path": cached.url,
            "size": cached.size,
            "etag": cached.etag,
            "modified": cached.modified,
        }
        return Source(rows, [description], tasks=tasks)


def fetch(address: Address, cache: Path | None = None) -> tuple[Path, CachedFile]:
    """The local copy of a file on the web, downloaded unless the cache holds what the server still has."""
    name = Path(unquote(address.parts.path)).name
    if not name.lower().endswith(tuple(FORMATS)):
        raise StoreError(f'"{address}" is not a data file of a known kind. Expected an ending of {", ".join(FORMATS)}.')
    folder = (cache or _cache()) / hashlib.sha256(address.text.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            return folder / name, _Download(address, folder / name).run()
    except OSError as error:
        raise StoreError(
            f'"{address}" cannot be kept in {folder}: {error.strerror or error}. Free space, or set '
            "NIGHTPRICE_CACHE_DIR."
        ) from error


def _cache() -> Path:
    from pipeline.settings import load_settings

    return load_settings().cache_dir / "downloads"


class _Download:
    """One file: `path` when it is whole, `path.part` until then, and beside each a note of what it is."""

    def __init__(self, address: Address, path: Path) -> None:
        self._address = address
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def run(self) -> CachedFile:
        cached = _noted(self._path)
        tries = TRIES
        while True:
            before = _size(self._part)
            try:
                return self._attempt(cached)
            except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
                if isinstance(error, HTTPError) and error.code < 500 and error.code != 429:
                    raise StoreError(
                        f'"{self._address}": the server answers {error.code} {error.reason}. {_remedy(error.code)}'
                    ) from error
                tries = tries - 1 if _size(self._part) <= before else TRIES
                if not tries:
                    return self._without_server(cached, error)
                time.sleep(PAUSE_S * (TRIES - tries))

    def _without_server(self, cached: CachedFile | None, error: Exception) -> CachedFile:
        if cached is None:
            reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
            raise StoreError(
                f'"{self._address}" cannot be downloaded: {reason or type(error).__name__}. Check the address and '
                "the network; run it again to continue where it stopped."
            ) from error
        logger.warning(
            '"%s" cannot be reached (%s): the copy in the cache is read, %s.', self._address, error, self._path
        )
        return cached

    def _attempt(self, cached: CachedFile | None) -> CachedFile:
        """Ask for the file, or for its rest; the answer decides which it is."""
        begun = _noted(self._part)
        headers = {"Accept-Encoding": "identity", "User-Agent": "nightprice"}
        if begun and begun.validator:
            headers |= {"Range": f"bytes={_size(self._part)}-", "If-Range": begun.validator}
        elif cached is not None:
            headers |= cached.if_changed()
        try:
            response: HTTPResponse = urlopen(Request(self._address.text, headers=headers), timeout=TIMEOUT_S)
        except HTTPError as error:
            if error.code == 304 and cached is not None:
                return cached
            if error.code == 416 and begun is not None:
                self._part.unlink(missing_ok=True)
                return self._attempt(cached)
            raise
        with closing(response):
            return self._store(response)

    def _store(self, response: HTTPResponse) -> CachedFile:
        start = _start_of(response)
        length = response.headers.get("Content-Length")
        file = CachedFile(
            self._address.display,
            start + int(length) if length else None,
            response.headers.get("ETag"),
            response.headers.get("Last-Modified"),
        )
        if start > _size(self._part):
            raise ConnectionError(f"the server left out the bytes before {start:,}")
        if start == 0:
            _note(self._part, file)
        with open(self._part, "r+b" if start else "wb") as part, _progress(self._path.name, file.size) as progress:
            part.truncate(start)
            part.seek(start)
            progress.update(progress.task_ids[0], completed=start)
            while chunk := response.read(CHUNK):
                part.write(chunk)
                progress.advance(progress.task_ids[0], len(chunk))
            part.flush()
            os.fsync(part.fileno())
        if file.size is not None and _size(self._part) < file.size:
            raise ConnectionError(f"the server broke off after {_size(self._part):,} of {file.size:,} bytes")
        return self._finish(replace(file, size=_size(self._part)))

    def _finish(self, file: CachedFile) -> CachedFile:
        # In this order: a note beside an older file would vouch for the wrong bytes.
        _note_path(self._path).unlink(missing_ok=True)
        os.replace(self._part, self._path)
        _note(self._path, file)
        _note_path(self._part).unlink(missing_ok=True)
        return file


def _start_of(response: HTTPResponse) -> int:
    """The position of the first byte of an answer: only 206 has one, any other answer is the whole file."""
    if response.status != 206:
        return 0
    return int(response.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])


def _remedy(code: int) -> str:
    if code in (401, 403):
        return "Ask for access, or download the file by hand and name its path."
    if code in (404, 410):
        return "Check the address; a site may move older files away."
    return "Try again later."


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note(path: Path, file: CachedFile) -> None:
    temporary = path.with_name(f"{path.name}.json.new")
    temporary.write_text(json.dumps(asdict(file)))
    os.replace(temporary, _note_path(path))


def _noted(path: Path) -> CachedFile | None:
    """What the note beside a file says, if both exist and fit."""
    if not path.exists() or not _note_path(path).exists():
        return None
    file = CachedFile(**json.loads(_note_path(path).read_text()))
    whole = not path.name.endswith(".part")
    return None if whole and file.size != _size(path) else file


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
