"""API keys, compared in constant time."""

import hmac
from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from serve_app.errors import RequestError

_BEARER = b"bearer "


class Keys:
    """The accepted keys. Without any, authentication is off.

    >>> Keys([SecretStr("a-key-of-some-length")]).check({b"x-api-key": b"a-key-of-some-length"})
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises RequestError 401 unless the request has a key in `Authorization: Bearer` or `X-API-Key`."""
        if not self._keys:
            return
        key = _key_in(headers)
        # All keys are compared, whichever matches: `any` would stop at the first.
        if key is None or not sum([hmac.compare_digest(key, accepted) for accepted in self._keys]):
            problem = "A key is needed" if key is None else "The key is not known"
            raise RequestError(
                401,
                "unauthorized",
                f"{problem}: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _key_in(headers: Mapping[bytes, bytes]) -> bytes | None:
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get(b"x-api-key")
