"""Addresses of tables: which database, which table or query of it, read by which key."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode

from nightprice.address import Address, parse_address
from pipeline.io.stores import AddressError

OURS = ("table", "query", "key")
EXAMPLES = {
    "postgresql": "postgresql://user@host/database?table=rows",
    "sqlite": "sqlite:///data.db?table=rows",
}


@dataclass(frozen=True)
class SqlAddress:
    """An address of a database, taken apart."""

    address: Address
    connection: str = field(repr=False)
    """What the database's driver takes: the address without our own parameters, or the path of SQLite's file."""
    secret: str | None = field(repr=False)
    """The password, decoded: a driver may quote it in a message."""
    options: tuple[tuple[str, str], ...]
    """The parameters that go to the driver."""
    table: str | None
    query: str | None
    key: str | None

    @property
    def display(self) -> str:
        """The whole address without the password: for messages and the column `source_file`."""
        return self.address.display

    def writable_table(self) -> str:
        """The table to write; AddressError for a query or a key, which are for reading."""
        if self.table is None or self.key is not None:
            raise AddressError(
                f'"{self.address}" cannot be written to: a sink is one table, as in "?table=rows", without '
                "query or key."
            )
        return self.table

    def of_table(self, table: str) -> Address:
        """The address of another table of the same database."""
        database = self.address.text.partition("?")[0]
        return parse_address(f"{database}?{urlencode([*self.options, ('table', table)], safe='/.')}")


def sql_address(address: Address) -> SqlAddress:
    """Take an address of a database apart; AddressError says what is wrong with it, never with the password."""
    parts = address.parts
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    if parts.fragment:
        raise AddressError(
            f'"{address.display.partition("#")[0]}" is cut off at a "#". Write "#" as %23 and "&" as %26 in a query '
            "or a password."
        )
    if any(name == "password" for name, _ in parameters):
        raise AddressError(
            f'"{address}": the password must not be a parameter. Use user:password@host, $PGPASSWORD or ~/.pgpass.'
        )
    ours = {name: value for name, value in parameters if name in OURS}
    if ("table" in ours) == ("query" in ours) or not all(ours.values()):
        example = EXAMPLES["sqlite" if address.scheme == "sqlite" else "postgresql"]
        raise AddressError(f'"{address}" must name one table or one query of the database, as in "{example}".')
    options = tuple((name, value) for name, value in parameters if name not in OURS)
    connection = parts._replace(query=urlencode(options)).geturl()
    query = ours.get("query")
    return SqlAddress(
        address,
        _sqlite_path(address) if address.scheme == "sqlite" else connection,
        unquote(parts.password) if parts.password else None,
        options,
        ours.get("table"),
        query.strip().rstrip(";") if query else None,
        ours.get("key"),
    )


def _sqlite_path(address: Address) -> str:
    """The absolute path of the file: three slashes begin a relative path, four an absolute one, as everywhere for
    SQLite.
    """
    if address.parts.netloc or not address.parts.path.strip("/"):
        raise AddressError(
            f'"{address}" names no file. Write sqlite:///relative.db?table=… or sqlite:////absolute.db?table=….'
        )
    return str(address.local)
