"""API keys, compared in constant time."""

import hmac
from collections.abc import Iterable, Iterator, Sequence

from pydantic import SecretStr

from serve_app.errors import RequestError

_BEARER = b"bearer "


class Keys:
    """The accepted keys. Without any, authentication is off.

    >>> Keys([SecretStr("a-key-of-some-length")]).check([(b"x-api-key", b"a-key-of-some-length")])
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises RequestError 401 unless one of a request's `Authorization: Bearer` or `X-API-Key` is a key.

        Any of them counts: `Authorization` may be a gateway's own.
        """
        if not self._keys:
            return
        sent = list(_keys_in(headers))
        # All keys are compared, whichever matches: `any` would stop at the first.
        if not sum([hmac.compare_digest(key, accepted) for key in sent for accepted in self._keys]):
            problem = "The key is not known" if sent else "A key is needed"
            raise RequestError(
                401,
                "unauthorized",
                f"{problem}: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _keys_in(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            yield value[len(_BEARER) :].strip()
