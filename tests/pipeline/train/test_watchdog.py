"""The watchdog over a training run. That workers of a real run give their heartbeats, `tests/e2e` sees."""

import threading
from types import SimpleNamespace

import pytest

from pipeline.train import watchdog
from pipeline.train.statistics import TrainingError
from pipeline.train.watchdog import Heartbeats, Watchdog

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nodes may come and go."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.05)


def test_the_most_silent_worker_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now))
    heartbeats = Heartbeats(2)
    now = 107.0
    heartbeats.beat(0)

    assert heartbeats.silent_seconds() == 7

    heartbeats.beat(1)
    now = 108.0
    assert heartbeats.silent_seconds() == 1


@pytest.mark.parametrize("broken", [[], ["on 10.0.0.7 the disk is full (0 of 400 MiB are free)"]])
def test_a_run_without_heartbeats_ends_with_what_is_wrong(
    of_a_cluster: None, monkeypatch: pytest.MonkeyPatch, broken: list[str]
) -> None:
    monkeypatch.setattr(watchdog, "broken_nodes", lambda: broken)
    wrong = (
        r"On 10\.0\.0\.7 the disk is full \(0 of 400 MiB are free\)\."
        if broken
        else r"Now the cluster has 4 CPUs, .*, and \S+ of them free\."
    )
    end = threading.Event()
    try:
        with pytest.raises(
            TrainingError,
            match=rf"^Training stands still: for 1\.5 s a worker has not started, or .* {wrong} Nothing was ",
        ):
            Watchdog.over(2, seconds=1.5).run(lambda: end.wait(60), lambda: None)
    finally:
        end.set()


def test_a_run_ends_with_its_result_or_its_error(of_a_cluster: None) -> None:
    with pytest.raises(ZeroDivisionError):
        Watchdog.over(1, seconds=60).run(lambda: 1 // 0, lambda: None)

    assert Watchdog.over(1, seconds=60).run(lambda: "a model", lambda: None) == "a model"
