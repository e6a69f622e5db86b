"""Who may call: API keys, compared so that the time it takes tells nothing."""

import hmac
from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from serve_app.errors import RequestError

_BEARER = b"bearer "


class Keys:
    """The keys that are let in; none: everybody is."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises RequestError 401 unless the request has a key in `Authorization: Bearer` or `X-API-Key`."""
        if not self._keys:
            return
        given = _given(headers)
        # All keys are compared, whichever fits: `any` would stop at the first.
        if given is None or not sum([hmac.compare_digest(given, key) for key in self._keys]):
            said = "A key is needed" if given is None else "The key is not known"
            raise RequestError(
                401,
                "unauthorized",
                f"{said}: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _given(headers: Mapping[bytes, bytes]) -> bytes | None:
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get(b"x-api-key")
