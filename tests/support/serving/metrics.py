"""Metrics that a test can look at."""

from collections import Counter
from collections.abc import Mapping
from queue import SimpleQueue

from serve_app.metrics import NoMetrics
from serve_app.model.predictor import Predictor


class CountingMetrics(NoMetrics):
    """Keeps what was refused, the attempts to reload by their result, and the models that were announced."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.reloads: Counter[str] = Counter()
        self.models: list[str | None] = []
        self.checks: list[float] = []

    def rejected(self, reasons: Mapping[str, int]) -> None:
        self.reasons.update(reasons)

    def reload(self, result: str) -> None:
        self.reloads[result] += 1

    def checked(self, timestamp: float) -> None:
        self.checks.append(timestamp)

    def model(self, predictor: Predictor | None, since: str | None) -> None:
        self.models.append(predictor.ref if predictor else None)


class AnnouncingMetrics(CountingMetrics):
    """Tells a waiting test of every poll: which model was in force at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._polls: SimpleQueue[str | None] = SimpleQueue()

    def model(self, predictor: Predictor | None, since: str | None) -> None:
        self._polls.put(predictor.ref if predictor else None)

    def await_poll(self) -> str | None:
        """The model in force after the next poll that was not waited for yet."""
        return self._polls.get(timeout=20)
