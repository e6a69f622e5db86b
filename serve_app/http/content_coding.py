"""Compressed bodies of requests (the header Content-Encoding), within the limit for bodies."""

import zlib
from collections.abc import Mapping

from serve_app.errors import RequestError
from serve_app.http.wire import too_large

GZIP, DEFLATE = "gzip", "deflate"
_NAMES = {"": None, "identity": None, GZIP: GZIP, "x-gzip": GZIP, DEFLATE: DEFLATE}


def coding_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The compression of a body, None if there is none. Raises RequestError 415 for one that is not known.

    >>> coding_of({b"content-encoding": b"X-GZip"}), coding_of({})
    ('gzip', None)
    """
    name = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if name not in _NAMES:
        raise RequestError(
            415,
            "unknown_encoding",
            "The body has a Content-Encoding that is not known. Send it without, or with gzip or deflate.",
            headers={"Accept-Encoding": f"{GZIP}, {DEFLATE}"},
        )
    return _NAMES[name]


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """The body as it was before its compression, which may not have more than `limit` bytes.

    Raises RequestError 413 if it has, 400 for what is not whole and valid.

    >>> decompress(zlib.compress(b"{}"), "deflate", limit=10)
    b'{}'
    """
    try:
        decompressor = zlib.decompressobj(_window(body, coding))
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise _invalid(coding) from error
    if len(content) > limit:
        raise too_large(limit)
    # A second member would have to be counted too; no client sends one.
    if not decompressor.eof or decompressor.unused_data:
        raise _invalid(coding)
    return content


def most_bytes(body: bytes, limit: int) -> int:
    """How many bytes a compressed body may become, but for the limit: deflate shrinks to a 1,032nd at best."""
    return min(limit, 1_032 * len(body))


def _window(body: bytes, coding: str) -> int:
    """What zlib calls the format: clients send "deflate" with zlib's header, as it is defined, or without."""
    if coding == GZIP:
        return 16 + zlib.MAX_WBITS
    has_header = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _invalid(coding: str) -> RequestError:
    return RequestError(
        400, "invalid_encoding", f"The body is not whole, valid {coding}, as its Content-Encoding says."
    )
