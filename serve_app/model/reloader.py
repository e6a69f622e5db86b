"""The model in force: loaded beside the old one, tested, then put in its place by one assignment.

A thread asks the registry every few seconds which version the reference names. Whatever goes wrong changes nothing but
what `status` reports: the service keeps the model that it has, and asks again.
"""

import logging
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nightprice.errors import NightpriceError
from registry.errors import UnreachableError
from registry.references import ModelRef, is_reference
from registry.registry import Registry
from serve_app.errors import not_ready
from serve_app.metrics import Metrics, NoMetrics
from serve_app.model.predictor import Predictor
from transforms.contract import Contract

# Below the logger of Ray Serve, so that it lands in the replica's log.
logger = logging.getLogger("ray.serve.nightprice")

# A version that failed is tried again after 1, 2, 4, … polls.
MAX_POLLS_BETWEEN_ATTEMPTS = 64

# Several threads add up what the trees give in another order for one row than for many: by up to 7e-6 in forests.
SEVERAL_THREADS_TOLERANCE = 1e-4

DONE = "done"
FAILED = "failed"
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class ReloadAttempt:
    """An attempt to change the model: the last one or, once the trouble is over, the last that succeeded."""

    when: str
    version: str | None
    """The requested version; None if the registry did not answer."""
    previous: str | None
    result: str
    """done, failed (the version can't be used) or unreachable (the registry does not answer)."""
    error: str | None = None


@dataclass
class FailedVersion:
    """A version that could not be used, and for how many polls it is left alone."""

    reference: str
    attempt: ReloadAttempt
    attempts: int
    polls_to_wait: int


class ModelReloader:
    """Holds the model that answers, and follows what its reference names."""

    def __init__(
        self,
        registry: Registry,
        reference: str,
        contract: Contract,
        *,
        poll_seconds: float = 5.0,
        threads: int = 1,
        metrics: Metrics | None = None,
    ) -> None:
        """Loads nothing yet: `start` does."""
        self._registry, self._reference, self.contract = registry, reference, contract
        self._poll_seconds, self._threads, self._metrics = poll_seconds, threads, metrics or NoMetrics()
        self._follows = is_reference(reference) and not ModelRef.parse(reference).is_version
        self._predictor: Predictor | None = None
        self._since: str | None = None
        self._last_check: datetime | None = None
        self._last_attempt: ReloadAttempt | None = None
        self._last_done: ReloadAttempt | None = None
        self._failed_version: FailedVersion | None = None
        self._loaded, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def predictor(self) -> Predictor:
        """The model in force; whoever takes it keeps it for the whole request. Raises RequestError 503 before the
        first.
        """
        predictor = self._predictor
        if predictor is None:
            raise not_ready(self.waiting_for or "The model is being loaded.")
        return predictor

    @property
    def current(self) -> Predictor | None:
        """The same, None before the first."""
        return self._predictor

    @property
    def waiting_for(self) -> str | None:
        """What is needed before the first answer, or None when ready."""
        if self._predictor is not None:
            return None
        attempt = self._last_attempt
        if attempt and attempt.error:
            return f"Waiting for the model {self._reference}: {attempt.error}"
        return f"Loading the model {self._reference}."

    @property
    def needs_polling(self) -> bool:
        """A version or a folder never changes once it is loaded."""
        return self._follows or self._predictor is None

    def status(self) -> dict[str, Any]:
        """What `/v1/model` reports: the reference, since when its model is in force, when the registry last told which
        version the reference names (None for a version or a folder, which stay), and the last attempt.
        """
        return {
            "reference": self._reference,
            "since": self._since,
            "last_check": _iso(self._last_check) if self._last_check else None,
            "last_swap": asdict(self._last_attempt) if self._last_attempt else None,
        }

    def start(self) -> None:
        """Try to load the model now, then follow the reference in a thread."""
        self.poll()
        self._thread = threading.Thread(target=self._follow, name="nightprice-reload", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until there is a model, without a limit."""
        self._loaded.wait()

    def stop(self) -> None:
        """End the thread; the model stays usable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def poll(self) -> None:
        """Ask once, and change the model if there is a new version. Never raises: `status` has what went wrong."""
        requested: str | None = None
        try:
            requested = self._requested()
            if requested is None or self._is_left_alone(requested):
                return
            self._reload(requested)
        except UnreachableError as error:
            self._record_failure(None, UNREACHABLE, str(error))
        except NightpriceError as error:
            self._record_failure(requested, FAILED if requested else UNREACHABLE, str(error))
        except Exception as error:
            logger.exception("Looking for a new model failed")
            self._record_failure(
                requested, FAILED, f"An unexpected {type(error).__name__}; see the log of the replica."
            )
        finally:
            self._report()

    def _report(self) -> None:
        """Never raises: a metric is no reason not to follow."""
        try:
            self._metrics.model(self._predictor, self._since)
            if self._last_check is not None:
                self._metrics.checked(self._last_check.timestamp())
        except Exception:
            logger.exception("The metrics of the model could not be set")

    def _follow(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.poll() if self.needs_polling else self._report()
            # Whatever it is: without this thread the service would keep its model for ever, and look healthy. A panic
            # in obstore, which is written in Rust, is no Exception.
            except BaseException:
                logger.exception("Looking for a new model broke off; it goes on")

    def _requested(self) -> str | None:
        """The reference to load, or None if it is in force. Raises RegistryError if the registry can't tell."""
        if not self._follows:
            return self._reference if self._predictor is None else None
        name, version = self._registry.resolve(self._reference)
        self._last_check = datetime.now(UTC)
        current = self._predictor
        if current is not None and current.artifact.version == version:
            # Earlier failures are of no interest any more.
            self._failed_version, self._last_attempt = None, self._last_done
            return None
        return f"{name}@{version}"

    def _is_left_alone(self, requested: str) -> bool:
        failed = self._failed_version
        if failed is None or failed.reference != requested:
            self._failed_version = None
            return False
        # The registry may have been unreachable since.
        self._last_attempt = failed.attempt
        failed.polls_to_wait -= 1
        return failed.polls_to_wait >= 0

    def _reload(self, requested: str) -> None:
        started = time.perf_counter()
        predictor = Predictor(self._registry.load(requested, self._threads), self.contract)
        self_test(predictor, self._threads)
        previous = self._version()
        self._predictor, self._since = predictor, _now()
        self._last_attempt = self._last_done = ReloadAttempt(self._since, predictor.artifact.version, previous, DONE)
        self._failed_version = None
        self._loaded.set()
        self._metrics.reload(DONE)
        logger.info(
            f"Model {predictor.ref} in force after {time.perf_counter() - started:.2f} s, before {previous or 'none'}"
        )

        self._tidy_cache(predictor)

    def _tidy_cache(self, predictor: Predictor) -> None:
        """The model is in force already: what goes wrong here is no failure of it."""
        try:
            self._registry.tidy_cache(predictor.artifact)
        except (OSError, NightpriceError) as error:
            logger.warning("Old models stay in the cache: %s", error)

    def _record_failure(self, requested: str | None, result: str, error: str) -> None:
        last = self._last_attempt
        is_repeated = last is not None and (last.result, last.error) == (result, error)
        version = requested.rpartition("@")[2] if requested else None
        self._last_attempt = ReloadAttempt(_now(), version, self._version(), result, error)
        if requested is not None:
            attempts = self._failed_version.attempts + 1 if self._failed_version else 1
            polls = min(2 ** (attempts - 1), MAX_POLLS_BETWEEN_ATTEMPTS) - 1
            self._failed_version = FailedVersion(requested, self._last_attempt, attempts, polls)
        self._metrics.reload(result)
        # Logged once, not at every poll.
        level = logging.DEBUG if is_repeated else logging.ERROR
        logger.log(level, f"No new model: {error} {self._version() or 'No model'} stays in force.")

    def _version(self) -> str | None:
        return self._predictor.artifact.version if self._predictor else None


def self_test(predictor: Predictor, threads: int = 1) -> None:
    """Score as requests will: rows one by one must give what they give together, to the bit with one thread.

    Raises NightpriceError otherwise. That the probabilities are those of training was checked on loading.
    """
    matrix = predictor.artifact.golden.features
    together = predictor.artifact.predict(matrix)
    one_by_one = np.concatenate([predictor.artifact.predict(row[np.newaxis]) for row in matrix])
    difference = np.abs(together - one_by_one).max()
    # Not `difference > …`: a NaN must fail too.
    if not difference <= (SEVERAL_THREADS_TOLERANCE if threads > 1 else 0):
        raise NightpriceError(
            f"{predictor.ref} gives one row other probabilities than many, by up to {difference:.2g}. Train it again."
        )


def _now() -> str:
    return _iso(datetime.now(UTC))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
