"""`nightprice serve`: starts or joins Ray, deploys the application, and ends cleanly."""

import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from nightprice import ray_environment
from nightprice.errors import NightpriceError, first_line
from nightprice.ray_cluster import connect, disconnect
from registry.registry import Registry
from serve_app.deployment import environment
from serve_app.deployment.shared_cluster import deployed_on_shared_cluster
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import self_test
from serve_app.options import LOOPBACK, ServeOptions, load_options, variable

logger = logging.getLogger(__name__)

STOP_SECONDS = 12.0
OBJECT_STORE_BYTES = 100 * 2**20
_LOG = "Its log is in Ray's session folder (/tmp/ray/session_latest/logs), under serve/."


def serve(*, say: Callable[[str], None] = print, ready: Callable[[str], None] | None = None, **given: Any) -> None:
    """Serve until Ctrl-C or SIGTERM; `given` are options by name, None for not given.

    `say` is called with each line for people, `ready` with the address once a model answers. Raises UsageError for
    wrong options, NightpriceError if there is no such model, a port is in use or a cluster does not answer.
    """
    options = load_options(**given)
    # A replica that starts later, while the registry is away, takes no requests.
    options = options.model_copy(update={"model": options.model_ref(), "model_required": True})
    _check_model(options)
    joins = bool(os.environ.get("RAY_ADDRESS"))
    with environment.configured(options.port) as haproxy, ExitStack() as running:
        local = {} if joins else _local_ray(options, haproxy is not None)
        stopped = running.enter_context(_signals())
        running.callback(setattr, sys, "stdout", sys.stdout)
        running.enter_context(_ray(local))
        # HAProxy goes before Ray: a driver whose cluster is gone may not live to the end of its own shutdown.
        running.enter_context(_without_haproxy(None if joins else haproxy))
        running.enter_context(_deployed(options, stopped, joins))
        address = f"http://{_public_host(options.host)}:{options.port}"
        if not options.is_local and not options.api_keys:
            say(
                f"WARNING: no keys, so whoever reaches {options.host}:{options.port} may call. Set "
                "NIGHTPRICE_SERVE_API_KEYS."
            )
        for line in _greeting(address, options.model_ref(), None if joins else also_open(options.port)):
            say(line)
        if ready:
            ready(address)
        stopped.wait()
        say("Stopping.")


def _check_model(options: ServeOptions) -> None:
    """Load the whole model and test it as a replica does, so that what is wrong with it is an error here."""
    artifact = Registry(options.registry, options.cache_dir).load(options.model_ref(), options.threads)
    self_test(Predictor(artifact, options.load_contract()), options.threads)


def check_cpus(options: ServeOptions, cpus: float) -> None:
    """Raises NightpriceError if the replicas that always run would wait for CPUs without end."""
    needed = options.min_replicas * options.num_cpus
    if needed > cpus:
        raise NightpriceError(
            f"{options.min_replicas} replicas of {options.num_cpus:g} CPUs need {needed:g}, Ray has {cpus:g} on this "
            f"machine. Lower min_replicas or num_cpus ({variable('num_cpus')})."
        )


def _greeting(address: str, model: str, others: str | None) -> Iterator[str]:
    import ray

    yield f"Serving {model} at {address}"
    yield f"  page       {address}/"
    yield f"  documents  {address}/docs"
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        yield f"  metrics    http://{nodes[0]['NodeManagerAddress']}:{nodes[0]['MetricsExportPort']}/metrics"
    if others:
        yield others
    yield "  stop with Ctrl-C"


def also_open(port: int) -> str | None:
    """What else than a port can be reached from other machines, as a line for people; None if nothing can.

    Ray writes HAProxy's configuration, and there these addresses are fixed, as is that of each replica's gRPC server.
    """
    haproxy = {os.environ.get(name) for name in environment.HAPROXY_PORTS}
    others = [str(other) for other in environment.open_ports() if other != port]
    if not others:
        return None
    named = ", ".join(f"{other} (HAProxy)" if other in haproxy else f"{other} (replica)" for other in others)
    return (
        f"  Let your firewall open port {port} only. Other machines can use these without an API key: {named}, and a "
        "port of each replica that is added."
    )


def _public_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class _Stop:
    """An event that Ctrl-C or SIGTERM sets; a second one interrupts, and so does the first within `interrupting`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._interrupts = False
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

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A block that may wait for ever: a signal raises KeyboardInterrupt, also one that came before."""
        self._interrupts = True
        try:
            if self._event.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _stop(self, number: int, frame: FrameType | None) -> None:
        interrupts = self._interrupts or self._event.is_set()
        self._event.set()
        if interrupts:
            raise KeyboardInterrupt


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()
    stop.arm()
    try:
        yield stop
    finally:
        stop.disarm()


def _local_ray(options: ServeOptions, with_haproxy: bool) -> dict[str, Any]:
    """What a Ray that is started here needs, before its first import. Raises NightpriceError for a port in use."""
    environment.check_ports(options.host, options.port, with_haproxy)
    ray_environment.configure(ray_environment.LOOPBACK if options.metrics_host in LOOPBACK else {})
    return {"object_store_memory": OBJECT_STORE_BYTES, "_metrics_export_port": environment.metrics_port(options)}


@contextmanager
def _ray(local: dict[str, Any]) -> Iterator[None]:
    """Around the Ray of RAY_ADDRESS or, without, one that is started with these arguments."""
    connect(**local)
    try:
        yield
    finally:
        disconnect(keep_logs=sys.exc_info()[1] is not None)


@contextmanager
def _deployed(options: ServeOptions, stopped: _Stop, joins: bool) -> Iterator[None]:
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    from serve_app.app import NAME, build

    # Ray took SIGTERM for itself when it started, and does so again when it deploys.
    stopped.arm()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    http = HTTPOptions(host=options.host, port=options.port)
    with deployed_on_shared_cluster(options, NAME) if joins else _on_this_machine(options):
        try:
            with stopped.interrupting(), _as_errors():
                ray_serve.start(
                    http_options=http, logging_config=LoggingConfig(encoding="JSON", enable_access_log=False)
                )
                stopped.arm()
                ray_serve.run(build(options), name=NAME, route_prefix="/")
                stopped.arm()
                _await_answer(options)
            yield
        finally:
            # A thread of Ray's prints there that its controller has ended. `serve` puts it back at the end.
            sys.stdout = io.StringIO()


@contextmanager
def _as_errors() -> Iterator[None]:
    """Raises as NightpriceError what Ray raises when a deployment fails."""
    from ray.exceptions import GetTimeoutError, RayError

    try:
        yield
    except (RuntimeError, RayError, GetTimeoutError) as error:
        raise NightpriceError(f"The service did not start: {_cause(str(error))} {_LOG}") from error


@contextmanager
def _on_this_machine(options: ServeOptions) -> Iterator[None]:
    """Around Ray Serve on a Ray that this process started: shuts Ray Serve down afterwards."""
    import ray
    from ray import serve as ray_serve

    check_cpus(options, ray.cluster_resources().get("CPU", 0))
    try:
        yield
    finally:
        _within(STOP_SECONDS, ray_serve.shutdown)


def _within(seconds: float, end: Callable[[], None]) -> None:
    """Wait for a clean end, so many seconds at most: a signal to all processes at once may have ended Ray already."""
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
    """The message of our own error in a replica, out of Ray's trace."""
    messages = re.findall(r"(?:UsageError|ContractError|RegistryError|ArtifactError|NightpriceError): (.+)", text)
    return messages[-1] if messages else f"{first_line(text)}."


@contextmanager
def _without_haproxy(folder: Path | None) -> Iterator[None]:
    """Afterwards no HAProxy of this service is left: Ray leaves one behind if it could not end in good order."""
    try:
        yield
    finally:
        if folder is not None:
            _end(environment.haproxies(folder))


def _end(processes: list[psutil.Process]) -> None:
    """End processes, at first with SIGTERM."""
    for process in processes:
        logger.debug("Ending HAProxy, process %d", process.pid)
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, STOP_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
