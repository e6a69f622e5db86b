"""What the service counts; Ray exports it to Prometheus.

Counts are collected here and handed to Ray once a second: handing one over costs more than a prediction.
"""

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from registry.manifest import parse_time
from serve_app.model.predictor import Predictor

# Milliseconds; one row takes less than one, a bulk request up to seconds.
LATENCY_BOUNDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000]
FLUSH_SECONDS = 1.0


class Metrics(Protocol):
    """What is counted."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""

    def predictions(self, model: str, labels: Mapping[str, int], seconds: float) -> None:
        """Rows were scored by a model: how many got which label, and how long the model took."""

    def rejected(self, reasons: Mapping[str, int]) -> None:
        """Records were refused: how often for which `field:problem`."""

    def reload(self, result: str) -> None:
        """An attempt to change the model ended."""

    def model(self, predictor: Predictor | None, since: str | None) -> None:
        """Which model is in force."""

    def checked(self, timestamp: float) -> None:
        """When the registry last told which version is to be served, in seconds since 1970."""


class NoMetrics:
    """Counts nothing: outside Ray."""

    def request(self, route: str, status: int, seconds: float) -> None: ...

    def predictions(self, model: str, labels: Mapping[str, int], seconds: float) -> None: ...

    def rejected(self, reasons: Mapping[str, int]) -> None: ...

    def reload(self, result: str) -> None: ...

    def model(self, predictor: Predictor | None, since: str | None) -> None: ...

    def checked(self, timestamp: float) -> None: ...


class RayMetrics:
    """Counts into `ray.serve.metrics`, from any thread."""

    def __init__(self, fields: Collection[str], flush_seconds: float = FLUSH_SECONDS) -> None:
        """`fields` are the names that rejections are counted by; any other one is counted as "other"."""
        from ray.serve import metrics as ray_metrics

        # Ray says tuple[str] and means tuple[str, ...].
        metrics: Any = ray_metrics
        self._fields = frozenset(fields)
        self._requests = metrics.Counter(
            "nightprice_requests", description="Requests answered.", tag_keys=("endpoint", "status")
        )
        self._predictions = metrics.Counter(
            "nightprice_predictions", description="Records scored.", tag_keys=("category", "model")
        )
        self._rejected = metrics.Counter(
            "nightprice_rejected", description="Wrong fields of records.", tag_keys=("field", "problem")
        )
        self._reloads = metrics.Counter(
            "nightprice_model_swaps", description="Attempts to change the model.", tag_keys=("result",)
        )
        self._age = metrics.Gauge(
            "nightprice_model_age_seconds", description="Time since the model was created.", tag_keys=("model",)
        )
        # A time and not an age: an age would stand still if nobody looked any more.
        self._checked = metrics.Gauge(
            "nightprice_model_last_check_timestamp_seconds",
            description="When the registry last told which version is to be served.",
        )
        self._request_ms = metrics.Histogram(
            "nightprice_request_latency_ms",
            description="Time of a request in the replica.",
            boundaries=LATENCY_BOUNDS,
            tag_keys=("endpoint",),
        )
        self._model_ms = metrics.Histogram(
            "nightprice_model_latency_ms",
            description="Time of the model in a request.",
            boundaries=LATENCY_BOUNDS,
            tag_keys=("model",),
        )
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Any, tuple[tuple[str, str], ...]]] = Counter()
        self._times: list[tuple[Any, float, dict[str, str]]] = []
        self._current: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._flush_regularly, args=(flush_seconds,), name="nightprice-metrics", daemon=True
        )
        self._thread.start()

    def request(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._counts[self._requests, (("endpoint", route), ("status", str(status)))] += 1
            self._times.append((self._request_ms, seconds * 1_000, {"endpoint": route}))

    def predictions(self, model: str, labels: Mapping[str, int], seconds: float) -> None:
        with self._lock:
            for label, count in labels.items():
                self._counts[self._predictions, (("category", label), ("model", model))] += count
            self._times.append((self._model_ms, seconds * 1_000, {"model": model}))

    def rejected(self, reasons: Mapping[str, int]) -> None:
        with self._lock:
            for reason, count in reasons.items():
                field, _, problem = reason.rpartition(":")
                # A name that a caller made up must not become a time series.
                name = field if field in self._fields else "other"
                self._counts[self._rejected, (("field", name), ("problem", problem))] += count

    def reload(self, result: str) -> None:
        with self._lock:
            self._counts[self._reloads, (("result", result),)] += 1

    def model(self, predictor: Predictor | None, since: str | None) -> None:
        if predictor is None:
            return
        if self._current not in (None, predictor.ref):
            # Otherwise the age of the old one would be reported unchanged from now on.
            self._age.set(0, tags={"model": str(self._current)})
        self._current = predictor.ref
        self._age.set(
            time.time() - parse_time(predictor.artifact.manifest["created"]).timestamp(),
            tags={"model": predictor.ref},
        )

    def checked(self, timestamp: float) -> None:
        self._checked.set(timestamp)

    def flush(self) -> None:
        """Hand over what was counted."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            times, self._times = self._times, []
        for (counter, tags), count in counts.items():
            counter.inc(count, tags=dict(tags))
        for histogram, value, tags_of in times:
            histogram.observe(value, tags=tags_of)

    def stop(self) -> None:
        """End the thread, after a last flush."""
        self._stopping.set()
        self._thread.join(timeout=5)
        self.flush()

    def _flush_regularly(self, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            self.flush()
