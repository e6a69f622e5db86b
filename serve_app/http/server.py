"""uvicorn's protocol, as the server of the replicas uses it: headers have a limit, and trailers are ignored."""

from uvicorn import config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# As much as HAProxy's buffer, several times over. The path counts too.
MAX_HEAD_BYTES = 65_536


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection that sends more than MAX_HEAD_BYTES without a header or body being complete.

    uvicorn itself keeps any number of bytes of a header, and appends trailers, which come after the body and which no
    proxy has looked at, to the headers of a request.
    """

    _unread = 0
    """Bytes since the last headers or part of a body."""

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what does not end with 400."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers have more than {MAX_HEAD_BYTES:,} bytes.")

    def on_headers_complete(self) -> None:
        """From now on headers are trailers, which the request does not get."""
        self._unread = 0
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count from here."""
        self._unread = 0
        super().on_body(body)


def install() -> None:
    """Make it the protocol of every server that uvicorn starts in this process, where Ray Serve names none."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"
