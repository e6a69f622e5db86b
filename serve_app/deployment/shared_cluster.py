"""Serving on a Ray cluster that others use as well: what runs there stays, and our application goes at the end."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from nightprice.errors import NightpriceError
from serve_app.options import ServeOptions


@contextmanager
def deployed_on_shared_cluster(options: ServeOptions, name: str) -> Iterator[None]:
    """Around the deployment of an application on a cluster that was joined: deletes the application afterwards.

    Ray Serve is shut down only if it was started for this application and serves nothing else. Raises NightpriceError
    if the application is deployed already, or Ray Serve runs and listens elsewhere.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        _check_free(name, serve.status().applications, options, client.http_config.host, client.http_config.port)
    try:
        yield
    finally:
        serve.delete(name)
        if client is None and not serve.status().applications:
            serve.shutdown()


def _check_free(name: str, applications: Collection[str], options: ServeOptions, host: str, port: int) -> None:
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
