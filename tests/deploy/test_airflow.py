"""The retraining under a real Airflow, in an environment of its own, against a real Ray head: `make airflow` makes the one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.generate import generate
from tests.ray_head_rig import ROOT, Cluster, free_ports

PYTHON = os.environ.get("NIGHTPRICE_TEST_AIRFLOW")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="NIGHTPRICE_TEST_AIRFLOW names no Python with Airflow (make airflow)")
SOURCES = ROOT / "deploy/airflow"
# A job of the test's own making, so that it can fail, wait and be refused at will.
ONE_JOB = """
from datetime import timedelta
from airflow.sdk import DAG
from ray_job_operator import RayJobOperator

def dag(name, **options):
    with DAG(name, schedule=None, params={"script": ""}) as made:
        RayJobOperator(
            task_id="job", command=["python", "-c", "{{ params.script }}"], poll_interval=timedelta(seconds=0.5),
            retries=1, retry_delay=timedelta(seconds=1), skip_on_exit_code=(3,), fail_on_exit_code=(2,), **options
        )
    return made

one_job = dag("one_job")
big_job = dag("big_job", options={"entrypoint_num_cpus": 64}, start_timeout=timedelta(seconds=2))
slow_job = dag("slow_job", execution_timeout=timedelta(seconds=1))
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow with the DAG, its plugins and a database of its own."""

    environment: dict[str, str]

    def run(self, *line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`airflow …`"""
        return self.python("-m", "airflow", *line, **variables)

    def python(self, *line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = self.environment | variables
        return subprocess.run([str(PYTHON), *line], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=180)

    def test(self, dag: str, conf: dict[str, Any], **variables: str) -> tuple[dict[str, str], str]:
        """The states of the tasks after `airflow dags test`, and all that it printed."""
        done = self.run("dags", "test", dag, "--conf", json.dumps(conf), **variables)
        states = self.python("-c", LAST_STATES, dag)
        assert states.returncode == 0, done.stdout + done.stderr + states.stderr
        return json.loads(states.stdout.splitlines()[-1]), done.stdout + done.stderr


LAST_STATES = """
import json, sys
from sqlalchemy import select
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
with create_session() as session:
    run = session.scalars(select(DagRun).where(DagRun.dag_id == sys.argv[1]).order_by(DagRun.id.desc()).limit(1)).one()
    print(json.dumps({"run": run.state} | {ti.task_id: ti.state for ti in run.get_task_instances(session=session)}))
"""


@pytest.fixture(scope="module")
def airflow(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags/nightprice_retrain.py").symlink_to(SOURCES / "dags/nightprice_retrain.py")
    (home / "dags/one_job.py").write_text(ONE_JOB)
    host, port = cluster.dashboard.removeprefix("http://").split(":")
    connection = {"conn_type": "http", "host": host, "port": int(port), "password": cluster.token}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    found = Airflow(
        kept
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(SOURCES / "plugins"),
            "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(connection),
            "AIRFLOW_VAR_NIGHTPRICE_RETRAIN": json.dumps({"source": "raw", "sink": "dataset", "registry": "models"}),
        }
    )
    done = found.run("db", "migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def jobs(cluster: Cluster, *words: str) -> list[Any]:
    """The jobs whose command has all of some words."""
    return [job for job in cluster.get("/api/jobs/") if all(word in job["entrypoint"] for word in words)]


def test_the_dags_parse(airflow: Airflow) -> None:
    done = airflow.run("dags", "list-import-errors", "--output", "json", "--local")

    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_a_whole_retraining(airflow: Airflow, cluster: Cluster, tmp_path: Path) -> None:
    generate(1_000, tmp_path / "raw", shards=2)
    conf = {name: str(tmp_path / folder) for name, folder in (("source", "raw"), ("sink", "dataset"), ("registry", "models"))}

    states, said = airflow.test("nightprice_retrain", conf)

    open("/tmp/whole.txt","w").write(said)
    assert states == {"run": "success", "process": "success", "train": "success", "promote": "success"}


def test_a_failing_job_fails_the_task_with_its_last_lines(airflow: Airflow, cluster: Cluster) -> None:
    states, said = airflow.test("one_job", {"script": "print('the reason why'); exit(1)"})

    assert states == {"run": "failed", "job": "failed"}, said
    open("/tmp/fail.txt","w").write(said)


def test_no_room(airflow: Airflow, cluster: Cluster) -> None:
    states, said = airflow.test("big_job", {"script": "1"})

    open("/tmp/room.txt","w").write(said)
    assert states == {"run": "failed", "job": "failed"}, said
