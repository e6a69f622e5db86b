"""Training workers that die."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.settings import Settings
from pipeline.train import boosting
from pipeline.train.statistics import TrainingError
from pipeline.train.train import train
from tests.support.accepted_listings import accepted_listings, write_dataset
from tests.support.spools import spools
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_worker_that_always_dies_is_started_three_times_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: retried work is bounded, the error is one sentence, and no version is published."""
    starts = tmp_path / "starts"

    def die(config: dict[str, Any]) -> None:
        with starts.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(boosting, "train_worker", die)
    # As in a cluster, where workers are processes of their own.
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    data = write_dataset(tmp_path / "data", accepted_listings(500))
    with pytest.raises(TrainingError) as error:
        train(data, registry=str(tmp_path / "registry"), settings=Settings())

    assert starts.read_text() == "xxx"
    assert str(error.value) == (
        "Training failed on worker 0: its process or its node died, as in each of 3 starts. Most often a node "
        "ran out of memory. "
        "Nothing was published."
    )
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize("during", ["Starting Ray", "Training xgboost"])
def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path, during: str) -> None:
    """Promise: the start of Ray is not interrupted halfway, which ended in a segmentation fault."""
    data = write_dataset(tmp_path / "data", accepted_listings(500))
    endless = {"NIGHTPRICE_XGBOOST__ROUNDS": "1000000", "NIGHTPRICE_XGBOOST__EARLY_STOPPING_ROUNDS": "1000000"}
    line = [sys.executable, "-m", "pipeline", "train", "--data", data, "--registry", str(tmp_path / "registry")]

    before = spools()
    with subprocess.Popen(line, env=os.environ | endless, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            assert any(line.startswith(during) for line in process.stderr)
            # Both phases write files without names: what Ray says at its start, and the rows that are trained on.
            until(lambda: spools() - before or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Error: Interrupted. Nothing was published: what was live stays live."
    assert not (tmp_path / "registry").exists()
