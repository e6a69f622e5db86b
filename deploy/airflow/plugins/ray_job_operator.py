"""A command as a Ray job, started once however often its Airflow task is tried."""

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseHook, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from ray_job_trigger import RayJobTrigger
from ray_jobs import Job, JobsError, RayJobs, TokenRefused

LAST_LINES = 20


class RayJobOperator(BaseOperator):
    """Run a command as a job of the Ray cluster that a connection names, and wait for it without keeping a worker.

    The job's whole log goes into the task's. The task's value is the last JSON object that stands on a line of its
    own in it,
    or of that object the members `result_keys`.

    A retry follows the job of the try before if that one runs or has succeeded, and starts another if it has failed
    or was
    stopped. A task that is cleared starts anew. Whoever ends the task ends the job.

    :param command: the command and its arguments; templated.
    :param conn_id: a connection with the dashboard's host and port, and the cluster's token as password.
    :param runtime_env: the job's runtime environment; templated.
    :param metadata: what the dashboard shows beside the job; templated.
    :param options: other members of the API's request, as in `{"entrypoint_num_cpus": 1}`.
    :param skip_on_exit_code: exit codes that skip the task: those of a gate that refuses.
    :param fail_on_exit_code: exit codes that another try would meet again.
    :param start_timeout: how long the job may wait for resources; `execution_timeout` limits the whole job.
    """

    template_fields: Sequence[str] = ("command", "runtime_env", "metadata")

    def __init__(
        self,
        *,
        command: Sequence[str],
        conn_id: str = "ray_default",
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        result_keys: Collection[str] | None = None,
        skip_on_exit_code: Collection[int] = (),
        fail_on_exit_code: Collection[int] = (),
        start_timeout: timedelta = timedelta(minutes=10),
        poll_interval: timedelta = timedelta(seconds=5),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.conn_id = conn_id
        self.runtime_env = runtime_env
        self.metadata = metadata
        self.options = options
        self.result_keys = result_keys
        self.skip_on_exit_code = skip_on_exit_code
        self.fail_on_exit_code = fail_on_exit_code
        self.start_timeout = start_timeout
        self.poll_interval = poll_interval
        self._cluster: RayJobs | None = None
        self._submission_id: str | None = None
        self._killed = False

    def execute(self, context: Context) -> None:
        with _one_sentence():
            self._cluster = self._connect()
            self._submission_id = self._follow_or_submit(self._cluster, submission_id(context["ti"]))
        if self._killed:
            # Killed while the request was on its way: there was nothing to stop yet.
            self.on_kill()
            raise AirflowFailException(f"Job {self._submission_id} was stopped, because the task was killed.")
        self.defer(trigger=self._trigger(context["ti"], self._submission_id), method_name="execute_complete")

    def execute_complete(self, context: Context, event: Mapping[str, str]) -> dict[str, Any] | None:
        """The job's result, once the trigger has fired. Raises for a job that has failed, was stopped or was given
        up.
        """
        name = event["submission_id"]
        if not name.startswith(submission_id(context["ti"])):
            # Databases that use a number again, such as SQLite, let a trigger that is left over wake the
            # task of a new one.
            self.log.warning("Woken by Ray job %s of another task: waiting on.", name)
            self.execute(context)  # which defers the task anew
        self._submission_id = name
        with _one_sentence():
            self._cluster = jobs = self._connect()
            if "given_up" in event:
                jobs.stop(name)
                raise AirflowException(event["given_up"])
            if "unfollowed" in event:
                raise AirflowException(event["unfollowed"])
            job, log = jobs.find(name), jobs.log(name)
        if job is None:
            raise AirflowException(f"Job {name} is not known any more: the cluster was started anew.")
        if job["status"] != "SUCCEEDED":
            self._fail(job, log)
        result = last_json(log)
        if result is None or self.result_keys is None:
            return result
        return {key: result[key] for key in self.result_keys}

    def on_kill(self) -> None:
        self._killed = True
        if self._cluster and self._submission_id:
            self._cluster.stop(self._submission_id)
            self.log.info("Stopped Ray job %s.", self._submission_id)

    def _connect(self) -> RayJobs:
        return RayJobs.of(BaseHook.get_connection(self.conn_id))

    def _follow_or_submit(self, jobs: RayJobs, first: str) -> str:
        """The id of the job to follow: that of an earlier try if it can be followed, else of a new one."""
        number, name = 1, first
        while job := jobs.find(name):
            if self._can_be_followed(job):
                self.log.info("Following Ray job %s, which an earlier try has started: %s.", name, job["status"])
                return name
            self.log.info("Ray job %s of an earlier try is %s: starting another.", name, job["status"])
            number += 1
            name = f"{first}-{number}"
        request = {"runtime_env": self.runtime_env, "metadata": self.metadata, **(self.options or {})}
        self.log.info("Submitting Ray job %s to %s: %s", name, jobs.address, shlex.join(self.command))
        jobs.submit(name, entrypoint=shlex.join(self.command), **request)
        return name

    def _trigger(self, ti: Any, name: str) -> RayJobTrigger:
        task = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
        return RayJobTrigger(
            self.conn_id,
            name,
            bookmark={"key": f"log_shown_{ti.try_number}", **task},
            poll_interval=self.poll_interval.total_seconds(),
            start_timeout=self.start_timeout.total_seconds(),
            run_timeout=self.execution_timeout.total_seconds() if self.execution_timeout else None,
        )

    def _can_be_followed(self, job: Job) -> bool:
        """Whether a job runs, may still start, or has ended with what counts for this try too.

        One that was given up while it was waiting ends as soon as it starts.
        """
        if job["status"] == "PENDING":
            return bool(job["age"] <= self.start_timeout.total_seconds())
        return job["status"] in {"RUNNING", "SUCCEEDED"} or job["driver_exit_code"] in (
            *self.skip_on_exit_code,
            *self.fail_on_exit_code,
        )

    def _fail(self, job: Job, log: str) -> NoReturn:
        code = job["driver_exit_code"]
        message = (last_json(log) or {}).get("error")
        if code in self.skip_on_exit_code:
            raise AirflowSkipException(message or f"Job {job['submission_id']} ended with exit code {code}.")
        # The message of a job whose command has failed is its log.
        why = job["message"] if code is None else f"exit code {code}"
        last = "\n".join(log.splitlines()[-LAST_LINES:])
        message = f"Job {job['submission_id']}: {job['status']}, {why}. Its last lines:\n{last}"
        raise AirflowFailException(message) if code in self.fail_on_exit_code else AirflowException(message)


def submission_id(ti: Any) -> str:
    """The id of a task's first job, the same for every retry of it, and another one once the task was cleared.

    `max_tries` grows when a task is cleared, and at no other time.
    """
    key = json.dumps([ti.dag_id, ti.task_id, ti.run_id, ti.map_index, ti.max_tries])
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{ti.dag_id}.{ti.task_id}.{ti.run_id}")
    return f"{readable[:150]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def last_json(log: str) -> dict[str, Any] | None:
    """The last JSON object that stands on a line of its own."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            return dict(value)
    return None


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Raise what the cluster's API refuses as Airflow's own errors; another attempt won't fix a wrong token."""
    try:
        yield
    except TokenRefused as error:
        raise AirflowFailException(str(error)) from error
    except JobsError as error:
        raise AirflowException(str(error)) from error
