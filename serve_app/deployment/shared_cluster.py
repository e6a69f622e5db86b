"""Serving on a Ray cluster that others use as well: what is there already, and going without a trace."""

import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from nightprice.errors import NightpriceError
from serve_app.options import ServeOptions


def check_answers(address: str) -> None:
    """Raises NightpriceError unless something listens at the cluster's address: Ray itself would try for minutes."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        where = (parts.hostname, parts.port)
    except ValueError as error:
        raise NightpriceError(
            f"RAY_ADDRESS={address} is no address: {error}. Write HOST:PORT, as in 10.0.0.5:6379."
        ) from error
    if None in where:
        return
    try:
        socket.create_connection(where, timeout=3).close()
    except OSError as error:
        raise NightpriceError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}). Start one there, mend "
            "RAY_ADDRESS, "
            "or unset it to serve on this machine alone."
        ) from error


@contextmanager
def guest(options: ServeOptions, name: str) -> Iterator[None]:
    """Around the deployment of an application on a cluster that was joined: afterwards the cluster is as it was.

    Raises NightpriceError if the application is there already, or Ray Serve runs and listens elsewhere.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        _check_room(name, serve.status().applications, options, client.http_config.host, client.http_config.port)
    try:
        yield
    finally:
        serve.delete(name)
        if client is None and not serve.status().applications:
            serve.shutdown()


def _check_room(name: str, applications: Collection[str], options: ServeOptions, host: str, port: int) -> None:
    if name in applications:
        raise NightpriceError(
            f'The cluster serves the application "{name}" already. Change it with `serve deploy`, or end it with '
            "`serve shutdown`."
        )
    if (host, port) != (options.host, options.port):
        raise NightpriceError(
            f"Ray Serve runs on the cluster and listens at {host}:{port}; that can't be changed while it runs. "
            f"Serve with --host {host} --port {port}, or end it with `serve shutdown`."
        )
