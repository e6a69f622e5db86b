"""Scheduled retraining: process, train, and a promotion that its gate may refuse, each as a job of a Ray cluster.

What it needs is in docs/schedule.md: the connection `ray_default`, and the variable `nightprice_retrain`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, Variable

from ray_job_operator import RayJobOperator

SETTINGS = {
    "source": "raw listings: the --source of process",
    "sink": "the dataset: the --sink of process",
    "registry": "the registry of models",
    "workers": "workers of the training",
    "schedule": "when it runs: cron, or null for by hand only",
    "runtime_env": (
        "the jobs' runtime environment: variables (env_vars), and the code (working_dir) if the image lacks it"
    ),
}
DEFAULTS = {"workers": 1, "schedule": "0 4 * * 1", "runtime_env": {}}


def settings() -> dict[str, Any]:
    """The variable `nightprice_retrain`, with defaults. Raises ValueError for what is missing or unknown."""
    configured = Variable.get("nightprice_retrain", default={}, deserialize_json=True)
    chosen: dict[str, Any] = DEFAULTS | configured
    missing, unknown = SETTINGS.keys() - chosen.keys(), chosen.keys() - SETTINGS.keys()
    if missing or unknown:
        wrong = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (("lacks", missing), ("has the unknown", unknown))
            if names
        ]
        raise ValueError(
            f"The Airflow variable nightprice_retrain {' and '.join(wrong)}. It is a JSON object with "
            f"{', '.join(SETTINGS)}."
        )
    return chosen


def step(name: str, *arguments: str, runtime_env: Mapping[str, Any], **options: Any) -> RayJobOperator:
    """One command of the pipeline. Wrong usage and a refusal are the same at every try, so they fail at once."""
    return RayJobOperator(
        task_id=name,
        command=["python", "-m", "pipeline", name, *arguments, "--json"],
        runtime_env=runtime_env,
        # As deploy/submit.py has it.
        metadata={"job_name": f"nightprice {name}", "step": name, "submitted_by": "airflow {{ run_id }}"},
        fail_on_exit_code=(2, 3),
        **options,
    )


chosen = settings()
with DAG(
    "nightprice_retrain",
    schedule=chosen["schedule"],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # A run that takes longer than the schedule's interval is waited for.
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=4)},
    params={
        **{
            name: Param(chosen[name], SETTINGS[name], type="string", minLength=1)
            for name in ("source", "sink", "registry")
        },
        "workers": Param(chosen["workers"], SETTINGS["workers"], type="integer", minimum=1),
    },
    doc_md=__doc__,
    tags=["nightprice"],
):
    env = chosen["runtime_env"]
    source, sink, workers = "{{ params.source }}", "{{ params.sink }}", "{{ params.workers }}"
    registry = ("--registry", "{{ params.registry }}")
    process = step(
        "process", "--source", source, "--sink", sink, runtime_env=env, result_keys=("version", "rows", "reasons")
    )
    train = step("train", "--data", sink, "--workers", workers, *registry, runtime_env=env)
    model = "{{ ti.xcom_pull(task_ids='train')['model'] }}"
    # Refused by the gate is a result: the champion stays, and the task is skipped.
    promote = step(
        "promote", model, "--if-better", "--reason", "scheduled", *registry, runtime_env=env, skip_on_exit_code=(3,)
    )
    process >> train >> promote
