"""Cross-origin requests: which pages of other origins may call the service.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Collection, Mapping

from serve_app.http.wire import Response

ANY = "*"
MAX_AGE_S = 600
_ALLOWED_HEADERS = (
    "authorization, content-encoding, content-type, inference-header-content-length, x-api-key, x-request-id"
)
_EXPOSED_HEADERS = "inference-header-content-length, retry-after, x-request-id"


class Cors:
    """The allowed origins; without any, browsers let no other page read an answer."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def headers(self, request: Mapping[bytes, bytes]) -> dict[str, str]:
        """What to add to the answer to a request with these headers.

        >>> Cors(["https://shop.example"]).headers({b"origin": b"https://shop.example"})["Access-Control-Allow-Origin"]
        'https://shop.example'
        >>> Cors(["https://shop.example"]).headers({b"origin": b"https://other.example"})
        {'Vary': 'Origin'}
        """
        if ANY in self._origins:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": _EXPOSED_HEADERS}
        origin = request.get(b"origin", b"").decode("latin-1")
        # A cache must not give one origin's answer to another.
        varies = {"Vary": "Origin"}
        if origin.lower() not in self._origins:
            return varies
        return varies | {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED_HEADERS}

    def preflight(self, methods: Collection[str]) -> Response:
        """The answer to what a browser asks before the request itself: what a path takes."""
        return Response(
            b"",
            204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(methods),
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": str(MAX_AGE_S),
            },
        )
