"""What we set of Ray that has no public setting."""

import inspect
import re
import urllib.request

import pytest
import ray
from ray.data._internal.execution import streaming_executor_state

from nightprice.errors import NightpriceError
from pipeline.cluster import session
from pipeline.progress import Progress
from tests.support.waiting import await_that


@pytest.mark.usefixtures("ray_session")
def test_the_scheduler_waits_for_our_tick_and_no_longer() -> None:
    session.start()

    assert streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S == session.SCHEDULER_TICK_S
    assert "timeout=WAIT_FOR_TASK_COMPLETION_TIMEOUT_S" in inspect.getsource(
        streaming_executor_state.process_completed_tasks
    )


def test_a_machine_too_busy_to_start_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because …\nmore")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", slow)

    with pytest.raises(
        NightpriceError, match=r"does not start on this machine: The current node timed out.* less busy"
    ):
        session.start()


@pytest.mark.usefixtures("ray_session")
def test_the_progress_is_among_rays_metrics() -> None:
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    pattern = re.compile(r'^ray_nightprice_progress\{.*stage="cleaning".*unit="rows".*\} 1234', re.MULTILINE)

    session.progress_gauge()(Progress("cleaning", {"rows": 1_234}))

    await_that(lambda: urllib.request.urlopen(address, timeout=10).read().decode(), pattern.search, 60)
