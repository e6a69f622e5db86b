"""What we set of Ray that has no public setting."""

import inspect

import pytest
from ray.data._internal.execution import streaming_executor_state

from pipeline import session


@pytest.mark.usefixtures("ray_session")
def test_the_scheduler_waits_for_our_tick_and_no_longer() -> None:
    session.start()

    assert streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S == session.SCHEDULER_TICK_S
    assert "timeout=WAIT_FOR_TASK_COMPLETION_TIMEOUT_S" in inspect.getsource(streaming_executor_state.process_completed_tasks)
