"""The model in force: loaded beside the old one, tested, then put in its place by one assignment.

A thread asks the registry every few seconds which version the alias names. Whatever goes wrong there changes nothing
but what `status` says: the service goes on with the model it has.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nightprice.errors import NightpriceError
from registry.artifact import GOLDEN, Artifact
from registry.errors import UnreachableError
from registry.registry import Registry
from serve_app.errors import not_ready
from serve_app.metrics import Metrics, NoMetrics
from serve_app.model.predictor import Predictor

# Below the logger of Ray Serve, so that it lands in the replica's log.
logger = logging.getLogger("ray.serve.nightprice")

_ALIAS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z][A-Za-z0-9._-]*)")
# A version that failed is tried again after 1, 2, 4, … polls.
MOST_POLLS = 64

DONE = "done"
FAILED = "failed"
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Swap:
    """An attempt to change the model: the last one, or after trouble that is over, the last that was done."""

    when: str
    version: str | None
    """The version that was wanted; None if the registry did not say."""
    previous: str | None
    result: str
    """done, failed (the version can't be used) or unreachable (the registry does not answer)."""
    error: str | None = None


@dataclass
class _Broken:
    """A version that could not be used, and for how many polls it is left alone."""

    wanted: str
    swap: Swap
    tries: int
    wait: int


class Follower:
    """Holds the model that answers, and follows what its reference names."""

    def __init__(
        self,
        registry: Registry,
        reference: str,
        *,
        poll_seconds: float = 5.0,
        threads: int = 1,
        metrics: Metrics | None = None,
    ) -> None:
        """Loads nothing yet: `start` does."""
        self._registry, self._reference, self._threads = registry, reference, threads
        self._poll_seconds, self._metrics = poll_seconds, metrics or NoMetrics()
        alias = _ALIAS.fullmatch(reference)
        self._alias = (alias[1], alias[2]) if alias else None
        self._predictor: Predictor | None = None
        self._since: str | None = None
        self._last_swap: Swap | None = None
        self._last_done: Swap | None = None
        self._broken: _Broken | None = None
        self._loaded, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.on_poll: Callable[[], None] = lambda: None

    @property
    def predictor(self) -> Predictor:
        """The model that answers now; whoever takes it keeps it for the whole request. Raises RequestError 503
        before the first.
        """
        predictor = self._predictor
        if predictor is None:
            raise not_ready(self.waiting_for or "The model is being loaded.")
        return predictor

    @property
    def waiting_for(self) -> str | None:
        """What is needed before the first answer, or None when ready."""
        if self._predictor is not None:
            return None
        swap = self._last_swap
        return (
            f"Waiting for the model {self._reference}: {swap.error}"
            if swap and swap.error
            else f"Loading the model {self._reference}."
        )

    @property
    def needs_polling(self) -> bool:
        """A version or a folder never changes once it is loaded."""
        return self._alias is not None or self._predictor is None

    def status(self) -> dict[str, Any]:
        """What `/v1/model` says of the swap: reference, since when, last attempt."""
        return {
            "reference": self._reference,
            "since": self._since,
            "last_swap": asdict(self._last_swap) if self._last_swap else None,
        }

    def start(self) -> None:
        """Try to load the model now, then follow in a thread."""
        self.poll()
        self._thread = threading.Thread(target=self._follow, name="nightprice-follow", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until there is a model, for ever if need be."""
        self._loaded.wait()

    def stop(self) -> None:
        """End the thread; the model stays usable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def poll(self) -> None:
        """Look once, and swap if there is something new. Never raises: what went wrong is in `status`."""
        wanted: str | None = None
        try:
            wanted = self._wanted()
            if wanted is None or self._is_waiting(wanted):
                return
            self._swap(wanted)
        except UnreachableError as error:
            self._failed(None, UNREACHABLE, str(error))
        except NightpriceError as error:
            self._failed(wanted, FAILED if wanted else UNREACHABLE, str(error))
        except Exception as error:
            logger.exception("Looking for a new model failed")
            self._failed(wanted, FAILED, f"An unexpected {type(error).__name__}; see the log of the replica.")
        finally:
            self._metrics.model(self._predictor, self._since)
            self.on_poll()

    def _follow(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            if self.needs_polling:
                self.poll()
            else:
                self._metrics.model(self._predictor, self._since)

    def _wanted(self) -> str | None:
        """The reference to load, or None if it is in force. Raises RegistryError if there is no saying."""
        if self._alias is None:
            return self._reference if self._predictor is None else None
        name, alias = self._alias
        record = self._registry.current(name, alias)
        if record is None:
            self._registry.resolve(self._reference)  # raises, naming what is there
            return None
        current = self._predictor
        if current is not None and current.artifact.version == record.version:
            self._settled()
            return None
        return f"{name}@{record.version}"

    def _settled(self) -> None:
        """The version in force is the one wanted: nothing to complain of any more."""
        self._broken, self._last_swap = None, self._last_done

    def _is_waiting(self, wanted: str) -> bool:
        broken = self._broken
        if broken is None or broken.wanted != wanted:
            self._broken = None
            return False
        # The registry may have been away since.
        self._last_swap = broken.swap
        broken.wait -= 1
        return broken.wait >= 0

    def _swap(self, wanted: str) -> None:
        started = time.perf_counter()
        predictor = Predictor(self._registry.load(wanted, self._threads))
        self_test(predictor)
        previous = self._version()
        self._predictor, self._since = predictor, _now()
        self._last_swap = self._last_done = Swap(self._since, predictor.artifact.version, previous, DONE)
        self._broken = None
        self._loaded.set()
        self._metrics.swap(DONE)
        logger.info(
            f"Model {predictor.ref} in force after {time.perf_counter() - started:.2f} s, before {previous or 'none'}"
        )

    def _failed(self, wanted: str | None, result: str, error: str) -> None:
        again = self._last_swap is not None and (self._last_swap.result, self._last_swap.error) == (result, error)
        self._last_swap = Swap(_now(), wanted.rpartition("@")[2] if wanted else None, self._version(), result, error)
        if wanted is not None:
            tries = self._broken.tries + 1 if self._broken else 1
            self._broken = _Broken(wanted, self._last_swap, tries, wait=min(2 ** (tries - 1), MOST_POLLS) - 1)
        self._metrics.swap(result)
        # Said once, not at every poll.
        logger.log(
            logging.DEBUG if again else logging.ERROR,
            f"No new model: {error} {self._version() or 'No model'} stays in force.",
        )

    def _version(self) -> str | None:
        return self._predictor.artifact.version if self._predictor else None


def self_test(predictor: Predictor) -> None:
    """Score as requests will: rows one by one must give what they give together.

    Raises NightpriceError otherwise. That the probabilities are the trained ones was checked on loading.
    """
    matrix = _golden(predictor.artifact)
    together = predictor.artifact.predict(matrix)
    alone = np.concatenate([predictor.artifact.predict(row[np.newaxis]) for row in matrix])
    if not np.array_equal(together, alone):
        raise NightpriceError(
            f"{predictor.ref} gives one row other probabilities than many. Score with one thread, or train it again."
        )


def _golden(artifact: Artifact) -> np.ndarray[Any, np.dtype[np.float32]]:
    import json

    return np.array(json.loads((artifact.folder / GOLDEN).read_bytes())["features"], np.float32)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
