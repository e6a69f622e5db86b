"""What we set of Ray that has no public setting."""

import inspect
import os
import re
import subprocess
import sys
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


REPORTS = """
import ray, ray.data
from pipeline.cluster import session
session.start(num_cpus=1)
print(ray.data.range(3).map_batches(lambda batch: batch).count())
try:
    ray.get_actor("datasets_stats_actor", "_dataset_stats_actor")
except ValueError:
    print("no actor")
"""


def test_on_this_machine_ray_data_starts_no_process_for_a_dashboard() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    done = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True, env=environment, check=False)

    assert done.stdout.split("\n")[:2] == ["3", "no actor"], done.stderr
