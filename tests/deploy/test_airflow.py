"""The retraining under a real Airflow, against a real Ray head: whole, and whatever can go wrong with a job.

Name the Python of an environment with Airflow, as `make airflow` makes one, in NIGHTPRICE_TEST_AIRFLOW.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from registry.registry import Registry
from tests.support.airflow import Airflow, make_airflow
from tests.support.ray_head import Cluster
from tests.support.waiting import until
from transforms.listings.generate import generate

PYTHON = os.environ.get("NIGHTPRICE_TEST_AIRFLOW")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="NIGHTPRICE_TEST_AIRFLOW names no Python with Airflow (make airflow)"
)
STEPS = ("process", "train", "promote")
SETTINGS = {
    "source": "nothing",
    "sink": "nothing",
    "registry": "nothing",
    "runtime_env": {"env_vars": {"NIGHTPRICE_XGBOOST__ROUNDS": "3", "NIGHTPRICE_HOLDOUT_SHARE": "0.3"}},
}
JOBS = """
from datetime import timedelta
from airflow.sdk import DAG
from ray_job_operator import RayJobOperator

def job(name, script, **options):
    common = {"poll_interval": timedelta(seconds=0.5), "retry_delay": timedelta(seconds=1)}
    return RayJobOperator(task_id=name, command=["python", "-uc", script], **common, **options)

with DAG("endings", schedule=None):
    final = {"fail_on_exit_code": (2,), "skip_on_exit_code": (3,), "retries": 1}
    job("failing", "print('the reason why'); exit(1)", **final)
    job("misused", "exit(2)", **final)
    job("refused", "exit(3)", **final)
    job("too_big", "pass", options={"entrypoint_num_cpus": 64}, start_timeout=timedelta(seconds=6), retries=1)
    unplaced = "import ray; ray.get(ray.util.placement_group([{'CPU': 48}]).ready())"
    job("unplaced", unplaced, start_timeout=timedelta(seconds=6))
    job("too_long", "import time; time.sleep(600)", execution_timeout=timedelta(seconds=12))

with DAG("waiting", schedule=None, is_paused_upon_creation=False, params={"folder": ""}):
    wait = "while not os.path.exists('{{ params.folder }}/%s'): time.sleep(0.1)"
    job("job", f"import os, time; print('so far')\\n{wait % 'go'}\\nprint('further')\\n{wait % 'end'}\\nprint('done')")
"""
# Tries of one task, one after another; what became of each is printed.
TRIES = """
import json, sys, time
from types import SimpleNamespace
from airflow.sdk.exceptions import TaskDeferred
from ray_job_operator import RayJobOperator

def attempt(number, conn_id="ray_default", max_tries=2, event=None):
    ti = SimpleNamespace(
        dag_id="a dag", task_id="task", run_id="now", map_index=-1, max_tries=max_tries, try_number=number
    )
    operator = RayJobOperator(task_id="task", command=("python", "-c", "import time; time.sleep(600)"), conn_id=conn_id)
    try:
        operator.execute_complete({"ti": ti}, event) if event else operator.execute({"ti": ti})
    except TaskDeferred as deferred:
        print("RESULT", deferred.trigger.submission_id)
    except Exception as error:
        print("RESULT", type(error).__name__, error)
    return operator

attempt(1)
attempt(1, event={"submission_id": "another-task"})
second = attempt(2)
second.on_kill()
jobs, name = second._cluster, second._submission_id
while jobs.find(name)["status"] != "STOPPED":
    time.sleep(0.1)
attempt(3).on_kill()
attempt(4, max_tries=5).on_kill()
for conn_id in ("wrong_token", "nobody", "unheard_of"):
    attempt(1, conn_id)
"""


@pytest.fixture(scope="module")
def airflow(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return make_airflow(
        str(Path(str(PYTHON)).absolute()), tmp_path_factory.mktemp("airflow"), cluster, SETTINGS, {"jobs.py": JOBS}
    )


def jobs(cluster: Cluster, dag: str, task: str) -> list[Any]:
    """The jobs that a task has started, oldest first."""
    found = [job for job in cluster.get("/api/jobs/") if (job["submission_id"] or "").startswith(f"{dag}.{task}.")]
    return sorted(found, key=lambda job: job["start_time"])


def test_every_dag_parses(airflow: Airflow) -> None:
    done = airflow.run("dags", "list-import-errors", "--output", "json", "--local")

    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_settings_that_are_missing_or_unknown_are_named(airflow: Airflow) -> None:
    wrong = json.dumps({"source": "raw", "sinc": "dataset", "registry": "models"})

    done = airflow.run(
        "dags", "list-import-errors", "--output", "json", "--local", AIRFLOW_VAR_NIGHTPRICE_RETRAIN=wrong
    )

    assert (
        "nightprice_retrain lacks sink and has the unknown sinc. It is a JSON object with source, sink, "
        "registry, workers" in done.stdout
    )


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where a run reads and writes."""
    folder = tmp_path_factory.mktemp("retraining")
    generate(1_000, folder / "raw", shards=2)
    return {name: str(folder / part) for name, part in (("source", "raw"), ("sink", "dataset"), ("registry", "models"))}


def test_a_retraining_as_a_whole(airflow: Airflow, cluster: Cluster, conf: dict[str, str]) -> None:

    states, said = airflow.test("nightprice_retrain", conf)

    assert states == {"run": "success"} | dict.fromkeys(STEPS, "success"), said
    assert Registry(conf["registry"]).current("listing-price", "champion") is not None
    assert said.count("Training xgboost on") == 1
    assert [job["metadata"]["job_name"] for step in STEPS for job in jobs(cluster, "nightprice_retrain", step)] == [
        f"nightprice {step}" for step in STEPS
    ]


@pytest.fixture(scope="module")
def endings(airflow: Airflow) -> tuple[dict[str, str], str]:
    """How a run ended whose tasks each end otherwise, and what it printed."""
    return airflow.test("endings", {})


@pytest.mark.parametrize(
    ("task", "state", "tries"),
    [("failing", "failed", 2), ("misused", "failed", 1), ("refused", "skipped", 1)],
)
def test_an_exit_code_decides(endings: Any, cluster: Cluster, task: str, state: str, tries: int) -> None:
    states, said = endings

    assert states[task] == state, said
    assert [job["status"] for job in jobs(cluster, "endings", task)] == ["FAILED"] * tries


def test_a_failed_task_says_the_last_lines_of_its_job(endings: Any, cluster: Cluster) -> None:
    first, second = (job["submission_id"] for job in jobs(cluster, "endings", "failing"))

    assert second == f"{first}-2"
    for name in (first, second):
        assert re.search(
            rf"Exception: Job {re.escape(name)}: FAILED, exit code 1. Its last lines:\n(.*\n)*?the reason why\n",
            endings[1],
        )


@pytest.mark.parametrize(("task", "asked"), [("too_big", r"\{'CPU': 64\.0\}"), ("unplaced", r"\{'CPU': 48\.0\}")])
def test_a_job_that_finds_no_room_fails_with_what_it_waits_for(
    endings: Any, cluster: Cluster, task: str, asked: str
) -> None:
    states, said = endings

    assert states[task] == "failed", said
    names = [re.escape(job["submission_id"]) for job in jobs(cluster, "endings", task)]
    assert re.search(rf"Job {names[-1]} (did not start|found no room for its workers) within 6 s\.", said)
    assert re.search(rf"Total Usage:\n(.*\n)*?Pending Demands:\n(.*\n)*? {asked}", said)


def test_a_job_over_its_time_is_stopped(endings: Any, cluster: Cluster) -> None:
    states, said = endings

    assert states["too_long"] == "failed", said
    assert "did not end within 12 s." in said
    (job,) = jobs(cluster, "endings", "too_long")
    until(lambda: cluster.job(job["submission_id"])["status"] == "STOPPED")


@pytest.fixture(scope="module")
def tries(airflow: Airflow) -> list[str]:
    done = airflow.python("-c", TRIES, PYTHONPATH=airflow.environment["AIRFLOW__CORE__PLUGINS_FOLDER"])
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)


def test_a_retry_or_a_wrong_wakening_follows_the_job_and_only_a_stopped_one_is_started_again(
    tries: list[str], cluster: Cluster
) -> None:
    first, woken, second, third, cleared = tries[:5]

    assert first.startswith("a-dag.task.now-")
    assert second == woken == first
    assert third == f"{first}-2"
    assert cleared not in (first, third)
    assert Counter(job["submission_id"] for job in jobs(cluster, "a-dag", "task")) == {first: 1, third: 1, cleared: 1}


def test_a_wrong_connection_is_said_in_a_sentence(tries: list[str], cluster: Cluster) -> None:
    wrong_token, nobody, unheard_of = tries[5:]

    assert wrong_token.startswith(
        f"AirflowFailException {cluster.dashboard} refuses the token. Put the cluster's token into"
    )
    assert re.fullmatch(
        r"AirflowException No Ray dashboard answers at http://\S+: .*refused.* Check the connection's.*", nobody
    )
    assert "unheard_of" in unheard_of


@pytest.fixture(scope="module")
def running(airflow: Airflow) -> Iterator[None]:
    """What a run needs of Airflow's own processes, but for the triggerer, which each test starts."""
    airflow.forget_triggers()
    with airflow.started("api-server"):
        until(airflow.answers)
        with airflow.started("scheduler"):
            yield


def shown(airflow: Airflow, attempt: int) -> list[list[str]]:
    """What each triggerer has brought into the log of a try."""
    files = sorted(airflow.home.glob(f"logs/dag_id=waiting/**/attempt={attempt}.log.trigger.*.log"))
    return [[json.loads(line)["event"] for line in file.read_text().splitlines()] for file in files]


def test_a_job_outlives_its_triggerer_but_not_its_task(
    running: None, airflow: Airflow, cluster: Cluster, tmp_path: Path
) -> None:
    done = airflow.run("dags", "trigger", "waiting", "--conf", json.dumps({"folder": str(tmp_path)}))
    assert done.returncode == 0, done.stdout + done.stderr
    with airflow.started("triggerer"):
        until(lambda: any("so far" in events for events in shown(airflow, 1)))
    (job,) = jobs(cluster, "waiting", "job")
    assert job["status"] == "RUNNING"

    with airflow.started("triggerer"):
        (tmp_path / "go").touch()
        until(lambda: any("further" in events for events in shown(airflow, 1)))
        assert airflow.run("tasks", "clear", "waiting", "--yes").returncode == 0

        until(lambda: cluster.job(job["submission_id"])["status"] == "STOPPED")
        until(lambda: len(jobs(cluster, "waiting", "job")) == 2)
        # Airflow's scheduler fails a task that is queued again before it has heard of the deferral.
        until(lambda: (airflow.home / "scheduler.log").read_text().count(" state=deferred, executor=") == 2)
        (tmp_path / "end").touch()
        until(lambda: airflow.states("waiting")["run"] == "success")
    for attempt, lines in ((1, ["so far", "further"]), (2, ["so far", "further", "done"])):
        assert [
            event for events in shown(airflow, attempt) for event in events if event in ("so far", "further", "done")
        ] == lines


def test_runs_that_overlap_wait_for_each_other_and_a_model_that_is_no_better_is_a_skip(
    running: None, airflow: Airflow, cluster: Cluster, conf: dict[str, str]
) -> None:
    """A schedule that is quicker than its runs, after `test_a_retraining_as_a_whole`: the same listings give no
    better model.
    """
    registry = Registry(conf["registry"])
    champion, versions = registry.current("listing-price", "champion"), len(registry.versions("listing-price"))
    assert airflow.run("dags", "unpause", "nightprice_retrain", "--yes").returncode == 0
    for run, given in (("first", conf), ("second", {**conf, "sink": conf["source"]})):
        done = airflow.run("dags", "trigger", "nightprice_retrain", "--run-id", run, "--conf", json.dumps(given))
        assert done.returncode == 0, done.stdout + done.stderr

    with airflow.started("triggerer"):
        until(lambda: airflow.states("nightprice_retrain", "second")["run"] in ("success", "failed"), seconds=400)

    states = {run: airflow.states("nightprice_retrain", run) for run in ("first", "second")}
    assert states["first"] == {"run": "success", "process": "success", "train": "success", "promote": "skipped"}
    assert states["second"] == {
        "run": "failed",
        "process": "failed",
        "train": "upstream_failed",
        "promote": "upstream_failed",
    }
    begun = sorted(
        (job["start_time"], job["end_time"], run_of(job))
        for step in STEPS
        for job in jobs(cluster, "nightprice_retrain", step)
    )
    assert [run for _, _, run in begun[-4:]] == ["first"] * 3 + ["second"]
    assert all(ended <= next_begun for (_, ended, _), (next_begun, _, _) in pairwise(begun[-4:]))
    assert len(registry.versions("listing-price")) == versions + 1
    assert registry.current("listing-price", "champion") == champion


def run_of(job: Any) -> str:
    """The run that a job belongs to: the last part of its id, before what makes it unlike all others."""
    return str(job["submission_id"].split(".")[2].rpartition("-")[0])
