"""Addresses of tables: which database, which table or query of it, read by which key."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pipeline.io.stores import StoreError

OURS = ("table", "query", "key")
EXAMPLES = {
    "postgresql": "postgresql://user@host/database?table=listings",
    "sqlite": "sqlite:///listings.db?table=listings",
}


@dataclass(frozen=True)
class Address:
    """A parsed address. Nothing but `connection` holds the password."""

    connection: str = field(repr=False)
    """The address without our own parameters, as the database's driver takes it."""
    secret: str | None = field(repr=False)
    shown: str
    """The whole address without the password: for messages and the column `source_file`."""
    table: str | None
    query: str | None
    key: str | None

    def to_write(self) -> str:
        """The table to write; StoreError for a query or a key, which are for reading."""
        if self.table is None or self.key is not None:
            raise StoreError(
                f'"{self.shown}" cannot be written to: a sink is one table, as in "?table=listings", without '
                "query or key."
            )
        return self.table

    def of_table(self, table: str) -> str:
        """The shown address of another table of the same database."""
        start, _, given = self.shown.partition("?")
        others = [(name, value) for name, value in parse_qsl(given) if name not in OURS]
        return f"{start}?{urlencode([*others, ('table', table)], safe='/.')}"


def parse(uri: str) -> Address:
    """Take an address of a database apart; StoreError says what is wrong with it, never with the password."""
    split = urlsplit(uri)
    start = _without_password(split)
    shown = start + (f"?{split.query}" if split.query else "")
    example = EXAMPLES["sqlite" if split.scheme == "sqlite" else "postgresql"]
    given = parse_qsl(split.query, keep_blank_values=True)
    if split.fragment:
        raise StoreError(f'"{shown}" is cut off at a "#". Write "#" as %23 and "&" as %26 in a query or a password.')
    if any(name == "password" for name, _ in given):
        raise StoreError(
            f'"{start}": no password among the parameters, please. Use user:password@host, $PGPASSWORD or ~/.pgpass.'
        )
    ours = {name: value for name, value in given if name in OURS}
    if ("table" in ours) == ("query" in ours) or not all(ours.values()):
        raise StoreError(f'"{shown}" must name one table or one query of the database, as in "{example}".')
    others = urlencode([(name, value) for name, value in given if name not in OURS])
    connection = split._replace(query=others).geturl()
    query = ours.get("query")
    return Address(
        _sqlite_path(split, shown) if split.scheme == "sqlite" else connection,
        unquote(split.password) if split.password else None,
        shown,
        ours.get("table"),
        query.strip().rstrip(";") if query else None,
        ours.get("key"),
    )


def sibling(uri: str, suffix: str) -> str:
    """The address of the table whose name has a suffix more, beside the table at `uri`.

    >>> sibling("sqlite:///a.db?table=listings&key=id", "_manifest")
    'sqlite:///a.db?table=listings_manifest'
    >>> sibling("bigquery://project/dataset.listings", "_manifest")
    'bigquery://project/dataset.listings_manifest'
    """
    split = urlsplit(uri)
    if not split.query:
        return uri + suffix
    given = [
        (name, value + suffix if name == "table" else value)
        for name, value in parse_qsl(split.query)
        if name not in ("query", "key")
    ]
    # Not `geturl`: it would drop the empty host of sqlite:///.
    return f"{uri.partition('?')[0]}?{urlencode(given, safe='/.')}"


def _without_password(split: SplitResult) -> str:
    user, at, host = split.netloc.rpartition("@")
    return f"{split.scheme}://{user.partition(':')[0]}{at}{host}{split.path}"


def _sqlite_path(split: SplitResult, shown: str) -> str:
    """The absolute path of the file; three slashes begin a relative path, four an absolute one, as everywhere for
    SQLite.
    """
    if split.netloc or not split.path.strip("/"):
        raise StoreError(
            f'"{shown}" names no file. Write sqlite:///relative.db?table=… or sqlite:////absolute/path.db?table=….'
        )
    return str(Path(unquote(split.path.removeprefix("/"))).absolute())
