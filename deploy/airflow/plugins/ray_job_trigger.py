"""Following a Ray job while its Airflow task is deferred."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.sdk import BaseXCom, Connection
from airflow.triggers.base import BaseTrigger, TriggerEvent

from ray_job_waiting import Waiting
from ray_jobs import ENDED, Job, JobsError, RayJobs, Unreachable

# A head that restarts, or a network that was repaired, is back by then.
PATIENCE_S = 300.0


class RayJobTrigger(BaseTrigger):
    """Brings the log of a job into the task's log as it grows, until the job has ended or must be given up.

    Fires once, with the `submission_id` and, if the job must be stopped, why it was `given_up`, or, if it goes on,
    why it can't be
    followed (`unfollowed`). A triggerer that restarts leaves the job alone; whoever ends the deferred task ends the
    job.

    :param bookmark: the place of the XCom that says, to the next triggerer too, how much of the log this try has shown.
    :param start_timeout, run_timeout: see `Waiting`.
    """

    def __init__(
        self,
        conn_id: str,
        submission_id: str,
        bookmark: Mapping[str, Any],
        *,
        poll_interval: float,
        start_timeout: float,
        run_timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.submission_id = submission_id
        self.bookmark = bookmark
        self.poll_interval = poll_interval
        self.start_timeout = start_timeout
        self.run_timeout = run_timeout
        self._shown: int | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("conn_id", "submission_id", "bookmark", "poll_interval", "start_timeout", "run_timeout")
        return f"{RayJobTrigger.__module__}.{RayJobTrigger.__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        event = {"submission_id": self.submission_id}
        try:
            if problem := await self._follow(await self._cluster()):
                event["given_up"] = problem
        except Unreachable as error:
            event["unfollowed"] = f"{error} Job {self.submission_id} may go on; another try follows it."
        except JobsError as error:
            event["unfollowed"] = str(error)
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        jobs = await self._cluster()
        await asyncio.to_thread(jobs.stop, self.submission_id)
        self.log.info("Stopped Ray job %s.", self.submission_id)

    async def _cluster(self) -> RayJobs:
        return RayJobs.of(await Connection.async_get(self.conn_id))

    async def _follow(self, jobs: RayJobs) -> str | None:
        """Why the job must be given up, or None once it has ended."""
        waiting = Waiting(self.start_timeout, self.run_timeout)
        answered = time.monotonic()
        while True:
            try:
                # Few and short requests: a thread each, and one client for both sides of the deferral.
                job = await asyncio.to_thread(self._look, jobs)
                problem = await asyncio.to_thread(waiting.problem, jobs, job)
                if problem or job["status"] in ENDED:
                    return problem
                answered = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - answered > PATIENCE_S:
                    raise
                self.log.warning("%s The job goes on; trying again.", error)
            await asyncio.sleep(self.poll_interval)

    def _look(self, jobs: RayJobs) -> Job:
        """The job, after showing what is new in its log. Raises JobsError if the cluster does not know it."""
        job = jobs.find(self.submission_id)
        if job is None:
            raise JobsError(
                f"The cluster at {jobs.address} does not know job {self.submission_id}: it was started anew since."
            )
        # The log after the status: the log of a job that has ended is whole. Of another one, whole lines.
        log = jobs.log(self.submission_id)
        self._show(log if job["status"] in ENDED else log[: log.rfind("\n") + 1])
        return job

    def _show(self, log: str) -> None:
        """Log the lines that this try has not shown yet, be it by a triggerer before this one."""
        if self._shown is None:
            self._shown = int(BaseXCom.get_one(**self.bookmark) or 0)
        for line in log[self._shown :].splitlines():
            self.log.info("%s", line)
        if len(log) > self._shown:
            self._shown = len(log)
            BaseXCom.set(value=self._shown, **self.bookmark)
