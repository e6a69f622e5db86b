"""Submitting a job, with a cluster that answers in all the wrong ways."""

import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import submit

AGENT = (
    "Failed to get head node agent within 30 seconds. The last exception is It's possible that the agent didn't launch"
)
TRACE = f'Traceback (most recent call last):\n  File "job_head.py", line 418, in submit_job\nException: {AGENT}\n'


class Jobs:
    """A cluster's jobs, or an error in their place."""

    refusal: Exception | None = None
    lost: Exception | None = None

    def __init__(self, address: str) -> None:
        self.jobs: list[Any] = []

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **request: Any) -> None:
        if self.refusal:
            raise self.refusal
        job = {"status": "FAILED", "message": "", "driver_exit_code": 3}
        self.jobs.append(SimpleNamespace(**request, **job))

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        yield "done\n"
        if self.lost:
            raise self.lost


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Jobs]:
    class Mine(Jobs):
        pass

    monkeypatch.setattr(submit, "JobSubmissionClient", Mine)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    return Mine


def test_a_step_is_followed_to_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--id", "me", "process", "--source", "a b"]) == 3

    printed = capsys.readouterr()
    assert printed.out == "done\n"
    assert printed.err.splitlines() == ["Submitting me to http://head:8265", "me: FAILED."]


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (RuntimeError(f"Request failed with status code 500: {TRACE}."), ["within 30 seconds", "dashboard agent"]),
        (
            RuntimeError("Request failed with status code 413: Maximum request body size 104857600 exceeded."),
            [".gitignore", "--in-image"],
        ),
        (RuntimeError("No authentication token was found."), ["bring the cluster's token", "RAY_AUTH_MODE=disabled"]),
        (ConnectionError("Failed to connect to Ray."), ["Is the cluster up"]),
    ],
)
@pytest.mark.parametrize("when", ["refusal", "lost"])
def test_what_goes_wrong_is_one_sentence(
    cluster: type[Jobs], capsys: pytest.CaptureFixture[str], error: Exception, parts: list[str], when: str
) -> None:
    setattr(cluster, when, error)

    assert submit.main(["--id", "me", "process"]) == 1

    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: http://head:8265 ")
    assert ("takes no jobs" in line, "what became of me" in line) == (when == "refusal", when == "lost")
    assert [part for part in parts if part not in line] == []
    assert "Traceback" not in line


def test_a_user_without_a_name_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError("getpwuid(): uid not found: 54321"), OSError("No username set in the environment")):

        def nameless(error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(submit, "getuser", nameless)
        assert submit.request(submit.parse(["process"]))["metadata"]["submitted_by"] == str(os.getuid())


def test_the_code_travels_unless_it_is_in_the_image() -> None:
    assert "working_dir" in submit.request(submit.parse(["train"]))["runtime_env"]
    request = submit.request(submit.parse(["--in-image", "train", "--data", "s3://a/b c"]))
    assert "working_dir" not in request["runtime_env"]
    assert request["entrypoint"] == "python -m pipeline train --data 's3://a/b c' --json"
