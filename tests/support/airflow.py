"""A real Airflow for the tests: an environment of its own, called by subprocess, with a home and a database of its
own.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.ray_head import Cluster

SOURCES = ROOT / "deploy/airflow"
STATES = """
import json, sys
from sqlalchemy import select
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
with create_session() as session:
    runs = select(DagRun).where(DagRun.dag_id == sys.argv[1], DagRun.run_id.like(sys.argv[2]))
    run = session.scalars(runs.order_by(DagRun.id.desc()).limit(1)).one()
    print(json.dumps({"run": run.state} | {ti.task_id: ti.state for ti in run.get_task_instances(session=session)}))
"""
FORGET_TRIGGERS = """
from sqlalchemy import delete
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
with create_session() as session:
    session.execute(delete(Trigger))
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow with the project's DAG and plugins."""

    executable: str
    home: Path
    environment: Mapping[str, str]

    def run(self, *line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`airflow …`"""
        return self.python("-m", "airflow", *line, **variables)

    def python(self, *line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`python …`, with Airflow to import."""
        line, environment = (self.executable, *line), {**self.environment, **variables}
        return subprocess.run(line, cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=600)

    def test(self, dag: str, conf: Mapping[str, Any]) -> tuple[dict[str, str], str]:
        """The states of the run and of its tasks after `airflow dags test`, and all that it printed."""
        done = self.run("dags", "test", dag, "--conf", json.dumps(conf))
        return self.states(dag), done.stdout + done.stderr

    def states(self, dag: str, run: str = "%") -> dict[str, str]:
        """The states of a run, by default of a DAG's last one, and of its tasks."""
        asked = self.python("-c", STATES, dag, run)
        assert asked.returncode == 0, asked.stdout + asked.stderr
        found: dict[str, str] = json.loads(asked.stdout.splitlines()[-1])
        return found

    def forget_triggers(self) -> None:
        """Of runs that `airflow dags test` has ended: SQLite gives their numbers to new ones, and a triggerer would
        fire both.
        """
        done = self.python("-c", FORGET_TRIGGERS)
        assert done.returncode == 0, done.stdout + done.stderr

    def answers(self) -> bool:
        """Whether the API server, which every task speaks to, is up."""
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", int(self.environment["AIRFLOW__API__PORT"]))) == 0

    @contextmanager
    def started(self, component: str) -> Iterator["subprocess.Popen[bytes]"]:
        """One of Airflow's own processes, until the end of the block."""
        with (self.home / f"{component}.log").open("ab") as log:
            line = [self.executable, "-m", "airflow", component]
            process = subprocess.Popen(line, cwd="/", env=self.environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


def make_airflow(
    executable: str, home: Path, cluster: Cluster, settings: Mapping[str, Any], dags: Mapping[str, str]
) -> Airflow:
    """An Airflow that knows a cluster, with the project's DAG, its settings, and DAGs of a test's own by file name."""
    (home / "dags").mkdir()
    (home / "dags/nightprice_retrain.py").symlink_to(SOURCES / "dags/nightprice_retrain.py")
    for name, text in dags.items():
        (home / "dags" / name).write_text(text)
    host, port = cluster.dashboard.removeprefix("http://").split(":")
    (api,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(SOURCES / "plugins"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__WORKERS": "1",
        # On a busy machine the first answer of its API server takes longer than the 5 s of the default.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        "AIRFLOW__API_AUTH__JWT_SECRET": cluster.token,
        "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(
            {"conn_type": "http", "host": host, "port": int(port), "password": cluster.token}
        ),
        "AIRFLOW_CONN_WRONG_TOKEN": json.dumps(
            {"conn_type": "http", "host": host, "port": int(port), "password": "wrong" * 10}
        ),
        "AIRFLOW_CONN_NOBODY": json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": free_ports(1)[0]}),
        "AIRFLOW_VAR_NIGHTPRICE_RETRAIN": json.dumps(settings),
    }
    found = Airflow(executable, home, environment)
    for line in (("db", "migrate"), ("dags", "reserialize")):
        done = found.run(*line)
        assert done.returncode == 0, done.stdout + done.stderr
    return found
