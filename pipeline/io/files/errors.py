"""What Arrow and the system raise about files, as one sentence for people."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from nightprice.errors import NightpriceError, first_line
from pipeline.io.stores import StoreError

# Of what a library says about a file.
LONGEST_REASON = 300


def reason_of(error: BaseException) -> str:
    """The first line of an error, fit for a terminal: Arrow quotes rows, and they may be binary."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text ({error.reason} at byte {error.start:,})"
    line = first_line(error)
    printable = "".join(sign if sign.isprintable() and sign != "\N{REPLACEMENT CHARACTER}" else "?" for sign in line)
    return printable if len(printable) <= LONGEST_REASON else f"{printable[:LONGEST_REASON]} …"


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what a reader raises about a file into one StoreError that names the file."""
    try:
        yield
    except NightpriceError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise StoreError(
            f'"{path}" cannot be read: {reason_of(error)}. Replace the file or leave it out of the source.'
        ) from error


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Turn what a file system raises into one StoreError; a full disk stays what it is."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise StoreError(
            f'"{where}" cannot be written: {reason_of(error)}. Check the address and your rights to it.'
        ) from error
