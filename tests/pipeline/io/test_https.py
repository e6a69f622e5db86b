"""Downloads from a local server that can break off, change its file, and refuse."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nightprice.address import parse_address
from nightprice.errors import ContractError
from pipeline.cluster.session import ray_errors
from pipeline.io import Source, StoreError, exactly, https, read
from pipeline.io.https import CachedFile
from tests.support.stores import rows_at

# Random enough that gzip leaves several chunks.
LISTINGS = "id,name\n" + "".join(f"{2**53 + n},{hash((n, 'x')) % 10**12}\n" for n in range(60_000))
BODY = gzip.compress(LISTINGS.encode())


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    url: str = ""
    body: bytes = BODY
    etag: str | None = '"one"'
    break_after: list[int] = field(default_factory=list)
    """For each answer to come: after so many bytes the connection ends."""
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)
    """The range of every request."""
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers["Range"]
        site.ranges.append(wanted)
        if site.status != 200:
            self.send_error(site.status)
            return
        if site.etag and self.headers["If-None-Match"] == site.etag:
            self.send_response(304)
            self.end_headers()
            return
        resumes = wanted is not None and self.headers["If-Range"] == site.etag
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if resumes else 0
        self.send_response(206 if resumes else 200)
        if resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.send_header("Content-Length", str(len(site.body) - start))
        self.end_headers()
        stop = start + site.break_after.pop(0) if site.break_after else len(site.body)
        self.wfile.write(site.body[start:stop])
        site.sent += len(site.body[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(https, "PAUSE_S", 0)
    found = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHandler", (Handler,), {"site": found}))
    found.url = f"http://127.0.0.1:{server.server_port}/nyc/2021-12-04/data/listings.csv.gz"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url: str, cache: Path) -> tuple[Path, CachedFile]:
    return https.fetch(parse_address(url), cache)


def test_a_file_is_downloaded_once(site: Site, tmp_path: Path) -> None:
    path, copy = fetch(site.url, tmp_path)
    assert path.name == "listings.csv.gz"
    assert path.read_bytes() == BODY
    assert (copy.url, copy.size, copy.etag) == (site.url, len(BODY), '"one"')
    assert fetch(site.url, tmp_path) == (path, copy)
    assert site.sent == len(BODY)
    assert sorted(item.name for item in path.parent.iterdir()) == ["listings.csv.gz", "listings.csv.gz.json", "lock"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.break_after = [len(BODY) // 2]
    path, _ = fetch(site.url, tmp_path)
    assert path.read_bytes() == BODY
    assert site.ranges == [None, f"bytes={len(BODY) // 2}-"]
    assert site.sent == len(BODY)


def test_the_next_run_goes_on_where_the_last_one_stopped(site: Site, tmp_path: Path) -> None:
    site.break_after = [1000, 0, 0, 0, 0]
    with pytest.raises(StoreError, match=r"broke off after 1,000 of .* run it again"):
        fetch(site.url, tmp_path)
    assert not list(tmp_path.glob("*/listings.csv.gz"))
    site.break_after = []
    assert fetch(site.url, tmp_path)[0].read_bytes() == BODY
    assert site.ranges[-1] == "bytes=1000-"


def test_a_file_that_changed_meanwhile_is_not_patched_together(site: Site, tmp_path: Path) -> None:
    site.break_after = [1000, 0, 0, 0, 0]
    with pytest.raises(StoreError):
        fetch(site.url, tmp_path)
    site.break_after, site.body, site.etag = [], gzip.compress(b"id,name\n1,new\n"), '"two"'
    path, copy = fetch(site.url, tmp_path)
    assert path.read_bytes() == site.body
    assert copy.etag == '"two"'


def test_without_a_validator_a_download_begins_anew(site: Site, tmp_path: Path) -> None:
    site.etag, site.break_after = None, [1000]
    assert fetch(site.url, tmp_path)[0].read_bytes() == BODY
    assert site.ranges == [None, None]


def test_a_new_file_replaces_the_copy(site: Site, tmp_path: Path) -> None:
    fetch(site.url, tmp_path)
    site.body, site.etag = gzip.compress(b"id,name\n1,new\n"), '"two"'
    assert fetch(site.url, tmp_path)[0].read_bytes() == site.body


def test_a_damaged_copy_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    path, _ = fetch(site.url, tmp_path)
    path.write_bytes(BODY[:-1])
    assert fetch(site.url, tmp_path)[0].read_bytes() == BODY


def test_without_the_server_the_copy_is_read_and_that_is_said(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, copy = fetch(site.url, tmp_path)
    site.status = 503
    assert fetch(site.url, tmp_path) == (path, copy)
    assert "the copy in the cache is read" in caplog.text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "answers 404 Not Found. Check the address"),
        (403, "answers 403 Forbidden. Ask for access"),
        (503, "503: Service Unavailable"),
    ],
)
def test_a_refusal_is_one_sentence(site: Site, tmp_path: Path, status: int, message: str) -> None:
    site.status = status
    with pytest.raises(StoreError) as caught:
        fetch(f"{site.url}?token=secret", tmp_path)
    assert message in str(caught.value)
    assert site.url in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "PAUSE_S", 0)
    with pytest.raises(
        StoreError, match=r"cannot be downloaded: .*Connection refused.*Check the address and the network"
    ):
        fetch("http://127.0.0.1:1/listings.csv", tmp_path)


def test_a_page_is_no_data_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a data file of a known kind"):
        fetch("https://insideairbnb.com/get-the-data", tmp_path)


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be kept in .* NIGHTPRICE_CACHE_DIR"):
        fetch(site.url, tmp_path / "file")


@pytest.mark.usefixtures("ray_session")
def test_rows_come_from_the_web(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_CACHE_DIR", str(tmp_path))
    site.break_after = [1000]
    source: Source = read(parse_address(f"{site.url}?token=secret"), exactly("id"))
    assert source.rows.count() == 60_000
    row = source.rows.take(1)[0]
    assert (row["id"], row["source_file"]) == (str(2**53), site.url)
    assert source.description == [{"path": site.url, "size": len(BODY), "etag": '"one"', "modified": None}]
    # Asked once, and once more for what was missing.
    assert site.ranges == [None, "bytes=1000-"]


@pytest.mark.usefixtures("ray_session")
def test_a_missing_column_is_named_with_the_address(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTPRICE_CACHE_DIR", str(tmp_path))
    with pytest.raises(ContractError, match=f'{site.url}: column "ids" is missing'), ray_errors():
        rows_at(site.url, exactly("ids")).take_all()
