"""The page for people and the interactive documents, as fixed responses without any outside address."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from nightprice.errors import NightpriceError
from serve_app.http.wire import Response

_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_OWN_FILES = {
    "/": "page.html",
    "/page.css": "page.css",
    "/page.js": "page.js",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
}
# Swagger UI, whose files this package brings along; it is not imported.
_PACKAGE = "fastapi_offline"
_SWAGGER_FILES = {"/swagger-ui.css": "swagger-ui.css", "/swagger-ui-bundle.js": "swagger-ui-bundle.js"}
PATHS = frozenset({*_OWN_FILES, *_SWAGGER_FILES})
# Nothing but our own files, no frame around us, no form sent elsewhere.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def responses() -> dict[str, Response]:
    """The response of every path of the page and the documents."""
    static, swagger = files("serve_app.http") / "static", _swagger_folder()
    own = {path: _response(name, (static / name).read_bytes()) for path, name in _OWN_FILES.items()}
    return own | {path: _response(name, (swagger / name).read_bytes()) for path, name in _SWAGGER_FILES.items()}


def _response(name: str, content: bytes) -> Response:
    return Response(content, content_type=_TYPES[name.rpartition(".")[2]], headers=HEADERS)


def _swagger_folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise NightpriceError(
            f"The package {_PACKAGE} with the files of Swagger UI is not installed. "
            "Install nightprice with its serve extra: pip install 'nightprice[serve]'."
        )
    return Path(spec.origin).parent / "static"
