"""The page for people, and the documents, as fixed answers without any outside address."""

from importlib.resources import files

from serve_app.http.wire import Reply

_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_PATHS = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/docs": "docs.html", "/docs.js": "docs.js"}
# Nothing but our own files, no frame around us, no form sent elsewhere.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def replies() -> dict[str, Reply]:
    """The answer of every path of the page."""
    folder = files("serve_app.http") / "static"
    return {
        path: Reply((folder / name).read_bytes(), content_type=_TYPES[name.rpartition(".")[2]], headers=HEADERS)
        for path, name in _PATHS.items()
    }
