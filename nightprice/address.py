"""Addresses of data: parsed once, where a text comes in; from there the value is passed on."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nightprice.errors import UsageError


@dataclass(frozen=True)
class Address:
    """Where data lie: a path, or a URL whose scheme names the store.

    `str` and `repr` show `display` only, so that an address can stand in any message.

    >>> address = parse_address("postgresql://ann:secret@db/sales?table=daily")
    >>> address, address.scheme
    (Address('postgresql://ann@db/sales?table=daily'), 'postgresql')
    """

    text: str
    """As it was written; it may hold a password or a token."""
    scheme: str
    """In lower case; a path has the scheme "file"."""
    display: str
    """Without what may be secret: for messages, logs and manifests."""
    parts: SplitResult = field(compare=False)
    """The parts of a URL; of a path or a file: URL, the path is `parts.path`. They may hold a secret, too."""

    def __str__(self) -> str:
        return self.display

    def __repr__(self) -> str:
        return f"Address({self.display!r})"

    @property
    def local(self) -> Path | None:
        """The absolute path of a file or folder of this machine; None for what lies elsewhere.

        >>> parse_address("file:///data/my%20rows").local, parse_address("sqlite:////data/x.db?table=rows").local
        (PosixPath('/data/my rows'), PosixPath('/data/x.db'))
        >>> parse_address("delta:///data/my%20table?version=7").local
        PosixPath('/data/my table')
        """
        if self.scheme == "file":
            return Path(self.parts.path).expanduser().absolute()
        if self.scheme == "delta":
            return Path(unquote(self.parts.path)).absolute()
        # As everywhere for SQLite: three slashes begin a relative path, four an absolute one.
        return Path(unquote(self.parts.path)[1:]).absolute() if self.scheme == "sqlite" else None

    def child(self, path: str) -> "Address":
        """The address of what lies below this one; a query stays at the end.

        >>> parse_address("s3://bucket/dataset/?region=eu-west-1").child("versions/1").text
        's3://bucket/dataset/versions/1?region=eu-west-1'
        >>> parse_address("odd?name").child("a").text
        'odd?name/a'
        """
        folder, mark, query = (self.text, "", "") if self.scheme == "file" else self.text.partition("?")
        return parse_address(f"{folder.rstrip('/')}/{path}{mark}{query}")


def parse_address(text: str) -> Address:
    """The address that a text holds.

    Raises UsageError for a blank text and for one that cannot be a URL.

    >>> [parse_address(text).scheme for text in ("s3://bucket/x", "/data/x.csv", "C:/data")]
    ['s3', 'file', 'file']
    >>> parse_address("https://ann:secret@host/x.csv?signature=secret").display
    'https://host/x.csv'
    """
    if not text.strip():
        raise UsageError("An address is blank. Name a folder, or an address as in docs/stores.md.")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UsageError(
            f'"{_without_secrets(text)}" is not an address: {error}. Write it as in docs/stores.md.'
        ) from error
    if len(parts.scheme) < 2 or parts.scheme == "file":
        return Address(text, "file", text, SplitResult("file", "", _path(text), "", ""))
    return Address(text, parts.scheme, _display(text, parts), parts)


def _path(text: str) -> str:
    """A path as it stands; of a file: URL, its path decoded."""
    if not text.lower().startswith("file:"):
        return text
    host, slash, path = text[len("file:") :].removeprefix("//").partition("/")
    if host not in ("", "localhost") or not slash:
        raise UsageError(f'"{text}" is not a file of this machine. Write file:///absolute/path.')
    return unquote(f"/{path}")


def _display(text: str, parts: SplitResult) -> str:
    """A URL without password; of the web also without query, which may be a signature."""
    if parts.scheme in ("http", "https"):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if any(name == "password" for name, _ in parse_qsl(parts.query)):
        text = text.partition("?")[0]
    user, at, host = parts.netloc.rpartition("@")
    # Not `geturl`: it would drop the empty host of sqlite:///.
    return text.replace(parts.netloc, f"{user.partition(':')[0]}{at}{host}", 1)


def _without_secrets(text: str) -> str:
    """A text that is not a URL, without what may be a password or a token in it."""
    return re.sub(r"://[^@]*@", "://", text).partition("?")[0]
