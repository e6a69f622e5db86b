"""Metrics that a test can look at."""

from collections import Counter
from collections.abc import Mapping

from serve_app.metrics import NoMetrics
from serve_app.model.predictor import Predictor


class CountingMetrics(NoMetrics):
    """Keeps what was refused, the swaps by their result, and the models that were announced."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.swaps: Counter[str] = Counter()
        self.models: list[str | None] = []

    def rejected(self, reasons: Mapping[str, int]) -> None:
        self.reasons.update(reasons)

    def swap(self, result: str) -> None:
        self.swaps[result] += 1

    def model(self, predictor: Predictor | None, since: str | None) -> None:
        self.models.append(predictor.ref if predictor else None)
