"""The few operations that a registry needs on a folder or a bucket, with readable errors.

Credentials come from the environment or the machine's role: AWS_ACCESS_KEY_ID and friends,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY. Profiles in ~/.aws are not read.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, ObjectStore, from_url

from nightprice.address import parse_address
from nightprice.errors import closest
from nightprice.job_folder import check_outlives_job
from registry.errors import MissingRegistryError, RegistryError, RegistryUsageError, UnreachableError
from registry.files import MOST_FILE_BYTES, check_size, read_regular

_CLOUD = ("s3", "gs", "abfs", "abfss", "az")
# A store that accepts a request and never responds must become an error: a read fails within 30 s, a write within 60 s.
CONNECT = timedelta(seconds=5)
READ_SILENCE = timedelta(seconds=15)
# It also runs while a file is being sent. The client does not repeat a conditional write.
WRITE_SILENCE = timedelta(seconds=60)
RETRY_FOR = timedelta(seconds=20)


class Store:
    """A folder on this machine or in a cloud. Nothing is opened before its first use.

    Paths are relative to its address.
    """

    def __init__(self, uri: str) -> None:
        _refuse_options(uri)
        self.local = _local_path(uri)
        self.uri = uri.rstrip("/") if self.local is None else str(self.local)
        if self.local is None:
            _check_cloud(uri)

    def make(self) -> None:
        """Create the folder if it is a local one; a bucket must exist."""
        with self._errors("written"):
            self._open(create=True)

    def check_writable(self) -> None:
        """Raise RegistryError or UsageError for a folder that can't be written, or a bucket that can't be listed."""
        if self.local is None:
            self.folders()
            return
        check_outlives_job(self.local, self.uri)
        with self._errors("written"):
            _check_hard_links(next(path for path in (self.local, *self.local.parents) if path.is_dir()))

    def read(self, path: str, most: int = MOST_FILE_BYTES) -> bytes | None:
        """The content of a file, or None if it does not exist.

        Raises ArtifactError for one of more than `most` bytes, and for what is no regular file below the folder.
        """
        with self._errors("read"):
            try:
                return self._read(path, most)
            except (FileNotFoundError, NotADirectoryError) as error:
                self._refuse_missing_bucket(error)
                return None

    def _read(self, path: str, most: int) -> bytes:
        store = self._open()
        if self.local is not None:
            return read_regular(self.local, path, most)
        found = obstore.get(store, path)
        check_size(found.meta["size"], most, self.where(path))
        return bytes(found.bytes())

    def create(self, path: str, content: bytes) -> bool:
        """Write a new file, all or nothing; False if the file exists with another content.

        The same content counts as written by us: after a lost response the client repeats the request by itself.
        """
        with self._errors("written"):
            try:
                obstore.put(self._open(create=True), path, content, mode="create")
            except AlreadyExistsError:
                return self.read(path) == content
            except FileNotFoundError as error:
                self._refuse_missing_bucket(error)
                raise
            return True

    def folders(self, path: str = "") -> list[str]:
        """The names of the folders directly in a folder; none if it does not exist."""
        with self._errors("read"):
            prefixes = obstore.list_with_delimiter(self._open(), path or None)["common_prefixes"]
            return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)

    def files(self, path: str) -> list[str]:
        """The names of the files directly in a folder; none if it does not exist."""
        with self._errors("read"):
            objects = obstore.list_with_delimiter(self._open(), path)["objects"]
            return sorted(item["path"].rpartition("/")[2] for item in objects)

    def where(self, path: str) -> str:
        """The full address of a path, for messages."""
        return f"{self.uri}/{path}"

    def _open(self, *, create: bool = False) -> ObjectStore:
        if self.local is None:
            return self._writer if create else self._reader
        if self.local.exists() and not self.local.is_dir():
            raise RegistryUsageError(
                f"{self.local} is a file, so it can't be a registry. Choose a folder with --registry."
            )
        if create:
            check_outlives_job(self.local, self.uri)
        elif not self.local.exists():
            raise MissingRegistryError(
                f"There is no registry at {self.local}. Train a model into it first, or choose another one with "
                "--registry."
            )
        return LocalStore(self.local, mkdir=create)

    @cached_property
    def _reader(self) -> ObjectStore:
        return self._cloud(READ_SILENCE)

    @cached_property
    def _writer(self) -> ObjectStore:
        return self._cloud(WRITE_SILENCE)

    def _cloud(self, silence: timedelta) -> ObjectStore:
        """A client that retries when the store has been silent for so long, but starts no retry after RETRY_FOR."""
        return from_url(
            self.uri,
            retry_config={"max_retries": 3, "retry_timeout": RETRY_FOR},
            # The default of 30 s for a whole request is short for a large forest.
            client_options={"connect_timeout": CONNECT, "read_timeout": silence, "timeout": "300s", "allow_http": True},
        )

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            self._refuse_missing_bucket(error)
            if _is_about_rights(error):
                remedy = "credentials" if self.local is None else "rights of the folder"
                raise RegistryError(
                    f"Permission denied: {self.uri} could not be {action}: {_short(error)} Check the {remedy}."
                ) from error
            remedy = (
                "Check the address, or try again."
                if self.local is None
                else "Check its rights and the space left on its disk."
            )
            raise UnreachableError(f"{self.uri} could not be {action}: {_short(error)} {remedy}") from error

    def _refuse_missing_bucket(self, error: Exception) -> None:
        if "NoSuchBucket" in str(error):
            raise RegistryUsageError(
                f"{self.uri}: the bucket does not exist. Create it, or choose another registry with --registry."
            ) from error


def _check_hard_links(folder: Path) -> None:
    """By a hard link a file appears whole, and only if none of its name exists; some mounts of buckets and shares have
    none.
    """
    # A file, not a folder: every folder here is a model to readers.
    with tempfile.NamedTemporaryFile(prefix=".probe-", dir=folder) as probe:
        link = Path(f"{probe.name}.link")
        try:
            os.link(probe.name, link)
            link.unlink()
        except OSError as error:
            raise RegistryUsageError(
                f"{folder} can't be a registry: its file system has no hard links ({error.strerror}). Choose a folder "
                "on a local disk or NFS, or a bucket."
            ) from error


def _refuse_options(uri: str) -> None:
    """Those of a source or a sink would be dropped without a word: the client here has other ones."""
    parts = urlsplit(uri)
    if len(parts.scheme) > 1 and (parts.query or parts.fragment):
        address = f"{parts.scheme}://{parts.netloc}{parts.path}"
        raise RegistryUsageError(
            f"The address of the registry {address} has options after it, and a registry takes none. Set them as "
            "variables: AWS_ENDPOINT_URL for endpoint_override, AWS_REGION for region."
        )


def _local_path(uri: str) -> Path | None:
    address = parse_address(uri)
    return address.local if address.scheme == "file" else None


def _check_cloud(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme not in _CLOUD:
        raise RegistryUsageError(
            f'"{uri}" can\'t be a registry: unknown scheme "{parts.scheme}".{closest(parts.scheme, _CLOUD)} '
            f"Use a folder, or an address that starts with {', '.join(f'{name}://' for name in _CLOUD)}."
        )
    if not parts.netloc:
        raise RegistryUsageError(f'"{uri}" has no bucket. Write {parts.scheme}://BUCKET/FOLDER.')


def _is_about_rights(error: Exception) -> bool:
    """obstore has error types for some of them only."""
    words = ("Permission denied", "Read-only file system", "403 Forbidden", "401 Unauthorized")
    return isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)) or any(
        word in str(error) for word in words
    )


def _short(error: Exception) -> str:
    """The store's message as one sentence, without its debug output; of XML or HTML, only the code."""
    if "TimedOut" in str(error):
        return "It does not answer."
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    return " ".join(text.partition(": <")[0].split()).rstrip(".") + (f" ({code[1]})." if code else ".")
