"""What a database's driver raises, as one sentence for people."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nightprice.errors import first_line
from pipeline.io.sql.address import SqlAddress
from pipeline.io.stores import StoreError

# By SQLSTATE where the driver gives one, else by words of the message.
FIXES = {
    "permission denied": "Ask the owner of the database for the right to do it.",
    "53100": "Free space on the server and run it again; nothing was published.",
    "2BP01": "Drop what depends on the table, or write to another one.",
    "readonly": "Ask for the right to write the file and its folder.",
    "failed to open": "Check that the file and its folder exist on this machine and your rights to them.",
    "unable to open database file": "If it is in WAL mode, SQLite writes files beside it even to read: copy it to a "
    "folder that can be written, or turn the mode off there (PRAGMA journal_mode=DELETE).",
    "is locked": "Another program holds the file: let it finish, and run it again.",
    "is full": "Free space and run it again; nothing was published.",
    "not a database": "Check that the file is SQLite's.",
    "connect": "Check host, port, database, user and password ($PGPASSWORD and ~/.pgpass are read too).",
    "syntax error": "Correct the query; it must be URL-encoded in the address.",
}


@contextmanager
def store_errors(address: SqlAddress) -> Iterator[None]:
    """Turn the errors of the driver into StoreError, without the password."""
    from adbc_driver_manager import Error

    try:
        yield
    except Error as error:
        raise StoreError(_sentence(address, str(error), getattr(error, "sqlstate", None))) from error


def _sentence(address: SqlAddress, message: str, sqlstate: str | None) -> str:
    fix = FIXES.get(sqlstate or "") or next(
        (fix for word, fix in FIXES.items() if word in message), "Check the address and the database."
    )
    return f'"{address.display}": {_reason(message, address.secret)}. {fix}'


def _reason(message: str, secret: str | None) -> str:
    """The part of a driver's message that says what happened, in one line.

    >>> _reason('NOT_FOUND: Failed to prepare query: ERROR:  relation "x" does not exist\\nLINE 1: …', None)
    'relation "x" does not exist'
    """
    line = re.split(r"(?:ERROR|FATAL): +", first_line(message))[-1]
    line = re.sub(r"^(?:[A-Z_]+: )?(?:\[\w+\] )?", "", line)
    return (line.replace(secret, "***") if secret else line).rstrip(". ")
