"""A service that can't start yet: a signal ends it."""

import signal
from pathlib import Path

import psutil
import pytest

from tests.support.serving.models import registry_with
from tests.support.serving.service import launch, replicas_of
from tests.support.tiny_model import FIRST, NAME
from tests.support.waiting import await_that


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits(tmp_path: Path, number: int) -> None:
    registry = registry_with(tmp_path, [FIRST])
    service = launch(registry=registry.uri, model=f"{NAME}@champion", poll_seconds=0.3)
    # The command has loaded the model when it starts Ray; a replica will wait for it.
    await_that(lambda: psutil.Process(service.process.pid).children(), bool, 60)
    Path(registry.uri).rename(tmp_path / "away")
    await_that(lambda: replicas_of(service.process.pid), bool, 120)
    below = service.below()

    assert service.stop(number) == 130

    service.wait_said("Interrupted")
    assert psutil.wait_procs(below, timeout=20)[1] == []
    assert not any("graceful_shutdown" in line or "Traceback" in line for line in service.said), service.said
