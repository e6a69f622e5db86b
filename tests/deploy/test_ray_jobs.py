"""The scheduler's view of Ray jobs, without an Airflow: clocks that differ."""

import importlib
import sys
import time
from email.utils import formatdate
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.support.paths import ROOT


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugins' modules that need no more of Airflow than a name."""
    sdk: Any = ModuleType("airflow.sdk")
    sdk.Connection = object
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    monkeypatch.syspath_prepend(ROOT / "deploy/airflow/plugins")
    modules = {name: importlib.import_module(name) for name in ("ray_jobs", "ray_job_waiting")}
    yield SimpleNamespace(**modules)
    for name in modules:
        del sys.modules[name]


def job(status: str, started: float) -> dict[str, Any]:
    return {"status": status, "start_time": started * 1000, "message": "", "job_id": None, "submission_id": "x"}


@pytest.mark.parametrize("behind", [-18_000, -660, 0, 660, 18_000])
@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_limits_do_not_depend_on_the_heads_clock(
    plugins: Any, monkeypatch: pytest.MonkeyPatch, behind: float, status: str
) -> None:
    jobs = SimpleNamespace(resources=lambda: "-", placement_groups=lambda _: [])
    clock = [1_000.0]
    monkeypatch.setattr(plugins.ray_job_waiting.time, "monotonic", lambda: clock[0])
    waiting, submitted = plugins.ray_job_waiting.Waiting(600, 14_400), time.time() - behind

    problems = []
    for seconds in (0, 599, 601, 14_399, 14_401):
        clock[0] = 1_000.0 + seconds
        problems.append(waiting.problem(jobs, job(status, submitted)) is not None)

    assert problems == ([False] * 2 + [True] * 3 if status == "PENDING" else [False] * 4 + [True])


@pytest.mark.parametrize("behind", [-660, 0, 660])
def test_the_age_of_a_job_is_by_the_heads_clock(plugins: Any, monkeypatch: pytest.MonkeyPatch, behind: float) -> None:
    there = time.time() - behind
    answer = httpx.Response(200, json=job("PENDING", there - 100), headers={"Date": formatdate(there, usegmt=True)})
    monkeypatch.setattr(httpx, "request", lambda *_, **__: answer)

    found = plugins.ray_jobs.RayJobs("http://head:8265").find("x")

    assert 100 <= found["age"] <= 102
