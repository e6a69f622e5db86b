"""A store that can't be used says what it is and what to do, and an answer that got lost changes nothing."""

import errno
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from threading import Event

import pytest

from nightprice.errors import UsageError
from registry import store
from registry.errors import RegistryError, UnreachableError
from registry.registry import Registry
from registry.store import Store
from tests.support.http_server import answering
from tests.support.s3_server import Bucket
from tests.support.tiny_model import FIRST, NAME, tiny_artifact


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/x?endpoint_override=127.0.0.1:5006&scheme=http", "takes none. Set them as variables"),
        ("gs://bucket/x#part", "takes none"),
        ("file:///srv/models?x=1", "takes none"),
        ("s4://bucket/x", 'unknown scheme "s4".'),
        ("s3://", '"s3://" has no bucket. Write s3://BUCKET/FOLDER.'),
        ("https://example.org/x", 'unknown scheme "https".'),
    ],
)
def test_an_address_that_can_be_no_registry(uri: str, message: str) -> None:
    with pytest.raises(RegistryError) as error:
        Registry(uri)
    assert message in str(error.value)


def test_a_folder_can_be_written_in_several_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b").mkdir()
    found = {Store(uri).local for uri in ("a b", "./a b/", str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", "~/a b")}
    assert found == {tmp_path / "a b"}


def test_a_file_system_without_hard_links_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(UsageError, match=r"its file system has no hard links \(Operation not permitted\)\. Choose"):
        Registry(str(tmp_path / "models")).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    Registry(str(tmp_path / "models")).check_writable()

    assert list(tmp_path.iterdir()) == []


def test_reading_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"There is no registry at .*/none\. Train a model into it first, or choose another"
    ):
        Registry(str(tmp_path / "none")).versions(NAME)
    assert not (tmp_path / "none").exists()


def test_a_file_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="is a file, so it can't be a registry"):
        Registry(str(tmp_path / "file")).names()


def test_a_folder_without_rights() -> None:
    # Not tmp_path: only its owner can reach that.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "registry").mkdir(mode=0o500)
        model = tiny_artifact(Path(folder) / "model")
        with (
            as_nobody(),
            pytest.raises(
                RegistryError,
                match=r"Permission denied: .*registry could not be (read|written): .* Check the rights of the folder",
            ),
        ):
            Registry(f"{folder}/registry").publish(model, NAME)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything: become somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_full_disk_publishes_nothing(tmp_path: Path) -> None:
    model = tiny_artifact(tmp_path / "model")
    registry = Registry(str(tmp_path / "registry"))
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(
            RegistryError,
            match=r"could not be written: .*File too large.* Check its rights and the space left on its disk\.",
        ):
            registry.publish(model, NAME)
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(RegistryError, match="has no completely published version"):
        registry.versions(NAME)


def test_a_bucket_that_does_not_exist(s3: Bucket, tmp_path: Path) -> None:
    registry = Registry(f"{s3.uri}-other/models")
    model = tiny_artifact(tmp_path / "model")
    for action in (registry.names, lambda: registry.publish(model, NAME), lambda: registry.load(f"{NAME}@champion")):
        with pytest.raises(RegistryError, match=r"the bucket does not exist\. Create it, or choose another registry"):
            action()


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(
        UnreachableError, match=r"s3://bucket/x could not be read: .* Check the address, or try again\."
    ):
        Registry("s3://bucket/x").names()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, RegistryError, "Permission denied: s3://bucket/x could not be read: .* Check the credentials"),
        (503, UnreachableError, "could not be read"),
    ],
)
def test_a_store_that_refuses(
    status: int, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda request: request.send_error(status)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(error, match=message):
            Registry("s3://bucket/x").resolve(f"{NAME}@champion")


def test_a_store_that_never_answers_is_an_error_after_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a read is tried twice, then fails; a write that depends on what is there is not repeated."""
    for name, seconds in (("READ_SILENCE", 1), ("WRITE_SILENCE", 1), ("RETRY_FOR", 1.9)):
        monkeypatch.setattr(store, name, timedelta(seconds=seconds))
    asked: list[str] = []
    ended = Event()

    def stay_silent(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.command)
        ended.wait()

    with answering(stay_silent) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(
            UnreachableError, match=r"s3://bucket/x could not be read: It does not answer\. Check the address"
        ):
            Registry("s3://bucket/x").resolve(f"{NAME}@champion")
        with pytest.raises(UnreachableError, match="could not be written: It does not answer"):
            Store("s3://bucket/x").create("a", b"content")
        ended.set()
    assert asked == ["GET", "GET", "PUT"]


class LosesAnAnswer:
    """Hands requests on to a server, and breaks off the first answer to a request that writes `path`."""

    def __init__(self, server: str, path: str) -> None:
        self._server, self._path, self.lost = server, path, 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        headers = {"Content-Type": "application/octet-stream", **dict(request.headers.items()), "Connection": "close"}
        forwarded = urllib.request.Request(self._server + request.path, body or None, headers, method=request.command)
        try:
            answer = urllib.request.urlopen(forwarded)
        except urllib.error.HTTPError as error:
            answer = error
        content = answer.read()
        if request.command == "PUT" and request.path.endswith(self._path) and not self.lost:
            self.lost += 1
            request.close_connection = True
            return
        request.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@pytest.mark.parametrize("path", ["manifest.json", "model.onnx", "00000001.json"])
def test_a_lost_answer_does_not_turn_a_success_into_a_conflict(
    s3: Bucket, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = LosesAnAnswer(s3.endpoint, path)
    with answering(proxy) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        registry = Registry(s3.uri, tmp_path / "cache")
        registry.publish(tiny_artifact(tmp_path / "model"), NAME)
        assert registry.promote(NAME, FIRST, "champion", "").number == 1
        assert len(registry.history(NAME, "champion")) == 1
    assert proxy.lost == 1
