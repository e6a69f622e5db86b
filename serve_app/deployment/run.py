"""`nightprice serve`: Ray on this machine or the cluster it is in, the application on it, and a clean end."""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from nightprice.errors import NightpriceError
from registry.registry import Registry
from serve_app.deployment import environment
from serve_app.deployment import shared_cluster as cluster
from serve_app.options import ServeOptions, load_options, variable

logger = logging.getLogger(__name__)

STOP_SECONDS = 12.0
OBJECT_STORE_BYTES = 100 * 2**20
_LOG = "Its log is in Ray's session folder (/tmp/ray/session_latest/logs), under serve/."


def serve(*, say: Callable[[str], None] = print, ready: Callable[[str], None] | None = None, **given: Any) -> None:
    """Serve until Ctrl-C or SIGTERM; `given` are options by name, None for not given.

    `say` gets what people want to read, `ready` the address once a model answers. Raises NightpriceError: wrong options
    (OptionsError), no such model, a port in use, a cluster that does not answer.
    """
    options = load_options(**given)
    # All of it, so that what is wrong is said here. Then a replica that comes later, while the registry is away,
    # takes no requests.
    Registry(options.registry, options.cache_dir).load(options.model)
    options = options.model_copy(update={"model_required": True})
    joins = os.environ.get("RAY_ADDRESS")
    with environment.configured(options.port) as haproxy, ExitStack() as running:
        if joins:
            cluster.check_answers(joins)
        else:
            environment.check_ports(options.host, options.port, haproxy is not None)
        stopped = running.enter_context(_signals())
        running.enter_context(_ray(joins))
        # HAProxy goes before Ray: a driver whose cluster is gone may not live to the end of its own shutdown.
        running.enter_context(_without_haproxy(None if joins else haproxy))
        running.enter_context(_deployed(options, stopped, bool(joins)))
        address = f"http://{_shown_host(options.host)}:{options.port}"
        if not options.is_local and not options.api_keys:
            say(
                f"WARNING: no keys, so whoever reaches {options.host}:{options.port} may call. Set "
                "NIGHTPRICE_SERVE_API_KEYS."
            )
        for line in _greeting(address, options):
            say(line)
        if ready:
            ready(address)
        stopped.wait()
        say("Stopping.")


def check_cpus(options: ServeOptions, cpus: float) -> None:
    """Raises NightpriceError if the replicas that always run would wait for CPUs for ever."""
    wanted = options.min_replicas * options.num_cpus
    if wanted > cpus:
        raise NightpriceError(
            f"{options.min_replicas} replicas of {options.num_cpus:g} CPUs need {wanted:g}, Ray has {cpus:g} on "
            "this machine. "
            f"Lower min_replicas or num_cpus ({variable('num_cpus')})."
        )


def _greeting(address: str, options: ServeOptions) -> Iterator[str]:
    import ray

    yield f"Serving {options.model} at {address}"
    yield f"  page       {address}/"
    yield f"  documents  {address}/docs"
    ports = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    if len(ports) == 1:
        yield f"  metrics    http://{_shown_host(options.host)}:{ports.pop()}/metrics"
    yield "  stop with Ctrl-C"


def _shown_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class _Stop:
    """An event that Ctrl-C or SIGTERM sets; a second one interrupts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """Listen to the signals; once more after Ray has started, which takes SIGTERM for itself."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._stop)
                self._before.setdefault(number, before)

    def disarm(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        self._event.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()
    stop.arm()
    try:
        yield stop
    finally:
        stop.disarm()


@contextmanager
def _ray(joins: str | None) -> Iterator[None]:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if joins:
            ray.init(address=joins, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    except Exception as error:  # what Ray raises has no base, down to Exception itself
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = f"at RAY_ADDRESS={joins}" if joins else "on this machine"
        raise NightpriceError(f"Ray {where} does not start or answer: {first}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _deployed(options: ServeOptions, stopped: _Stop, joins: bool) -> Iterator[None]:
    from ray import serve as ray_serve
    from ray.exceptions import GetTimeoutError, RayError
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    from serve_app.app import NAME, build

    # Ray has taken SIGTERM for itself, and takes it once more when it deploys.
    stopped.arm()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    http = HTTPOptions(host=options.host, port=options.port)
    with cluster.guest(options, NAME) if joins else _alone(options):
        try:
            ray_serve.start(http_options=http, logging_config=LoggingConfig(encoding="JSON", enable_access_log=False))
            ray_serve.run(build(options), name=NAME, route_prefix="/")
            stopped.arm()
            _await_answer(options)
        except (RuntimeError, RayError, GetTimeoutError) as error:
            raise NightpriceError(f"The service did not start: {_cause(str(error))} {_LOG}") from error
        yield


@contextmanager
def _alone(options: ServeOptions) -> Iterator[None]:
    """Around Ray Serve on a Ray of our own: afterwards it is gone."""
    import ray
    from ray import serve as ray_serve

    check_cpus(options, ray.cluster_resources().get("CPU", 0))
    try:
        yield
    finally:
        _within(STOP_SECONDS, ray_serve.shutdown)


def _within(seconds: float, end: Callable[[], None]) -> None:
    """Let something end in good order, but not for ever: a signal to all processes at once may have ended Ray
    before us.
    """
    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        logger.warning("Ray Serve did not end within %g s: ending its processes.", seconds)


def _await_answer(options: ServeOptions, seconds: float = 60.0) -> None:
    """Until the proxy in front sends requests on to a replica."""
    import http.client

    deadline = time.monotonic() + seconds
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    while True:
        connection = http.client.HTTPConnection(host, options.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            logger.debug("Not answering yet")
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise NightpriceError(f"The service does not answer at {host}:{options.port}. {_LOG}")
        time.sleep(0.05)


def _cause(text: str) -> str:
    """What we raised in a replica, out of Ray's trace."""
    found = re.findall(r"(?:OptionsError|RegistryError|ArtifactError|NightpriceError): (.+)", text)
    return found[-1] if found else (text.strip().splitlines() or ["no reason given"])[0]


@contextmanager
def _without_haproxy(folder: Path | None) -> Iterator[None]:
    """Afterwards no HAProxy of this service is left: Ray leaves one behind if it could not end in good order."""
    try:
        yield
    finally:
        if folder is not None:
            _end_haproxy(folder)


def _end_haproxy(folder: Path) -> None:
    config = f"-f {folder}/"
    deadline = time.monotonic() + STOP_SECONDS
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        left = [
            pid
            for pid, command in environment.processes()
            if config in command and "haproxy" in command.partition(" ")[0]
        ]
        for pid in left:
            logger.debug("Ending HAProxy, process %d", pid)
            os.kill(pid, signal_number)
        while left and time.monotonic() < deadline:
            left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
            time.sleep(0.05)
