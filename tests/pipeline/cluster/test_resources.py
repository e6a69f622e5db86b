"""Work that finds no room says what it wants and what is there, and ends."""

import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from pipeline.cluster import resources
from pipeline.cluster.resources import ResourcesError, await_cpu, await_workers

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def in_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nodes may come."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(resources, "QUIET_SECONDS", 0.1)


class Holder:
    """Somebody else's work, which has all CPUs."""

    def is_there(self) -> bool:
        return True


@pytest.fixture
def holder() -> Iterator[Any]:
    holder: Any = ray.remote(num_cpus=4)(Holder).remote()
    assert ray.get(holder.is_there.remote())
    yield holder
    ray.kill(holder)


def test_a_free_cluster_is_no_wait(in_cluster: None, caplog: pytest.LogCaptureFixture) -> None:
    resources.QUIET_SECONDS = 60
    await_cpu(seconds=60)
    await_workers(2, 1.0, seconds=60)

    assert not caplog.records


def test_workers_that_would_leave_no_cpu_to_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ResourcesError, match=r"needs 5 CPUs: 2 for each of 2 training workers, and one to read"):
        await_workers(2, 2.0, seconds=600)


def test_more_workers_than_this_machine_has_cpus_are_refused_at_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ResourcesError) as error:
        await_workers(50, 1.0, seconds=600)

    assert re.fullmatch(
        "Nothing was started: it needs 51 CPUs: 1 for each of 50 training workers, and one to read their rows; "
        "but after 0 s the "
        r"cluster has 4 CPUs, 4 at most on one node, and \S+ of them free\. "
        r"Give fewer --workers, set training_cpus lower, or add nodes\.",
        str(error.value),
    )


def test_a_cluster_that_may_grow_is_waited_for(in_cluster: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ResourcesError, match=r"needs 51 CPUs: .* after 0\.5 s"):
        await_workers(50, 1.0, seconds=0.5)

    (record,) = caplog.records
    assert record.getMessage().startswith("Waiting up to 0.5 s for 51 CPUs: 1 for each of 50 training workers, ")


def test_a_cluster_that_others_use_is_waited_for_and_then_given_up(in_cluster: None, holder: Any) -> None:
    with pytest.raises(
        ResourcesError, match=r"needs one CPU for a task; but after 0\.5 s .* 0 of them free\. End other jobs"
    ):
        await_cpu(seconds=0.5)


def test_the_wait_ends_when_there_is_room(in_cluster: None, holder: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Ends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threading.Thread(target=ray.kill, args=(holder,)).start()

    ends = Ends()
    resources.logger.addHandler(ends)
    try:
        await_cpu(seconds=60)
    finally:
        resources.logger.removeHandler(ends)

    assert "0 of them free" in caplog.text
