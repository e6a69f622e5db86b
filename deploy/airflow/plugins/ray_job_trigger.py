"""Following a Ray job while its Airflow task is deferred."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.sdk import BaseXCom, Connection
from airflow.triggers.base import BaseTrigger, TriggerEvent

from ray_job_waiting import Waiting
from ray_jobs import ENDED, Job, JobsError, RayJobs, Unreachable

# A head that restarts, or a network that is mended, is back by then.
PATIENCE_S = 300.0


class RayJobTrigger(BaseTrigger):
    """Brings the log of a job into the task's log as it grows, until the job has ended or must be given up.

    Fires once, with the `submission_id` and, if the job must be stopped, why it was `given_up`, or, if it goes on, why it can't be
    followed (`unfollowed`). A triggerer that restarts leaves the job alone; whoever ends the deferred task ends the job.

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
        shown = int(await BaseXCom.aget_one(**self.bookmark) or 0)
        answered = time.monotonic()
        while True:
            try:
                # Few and short requests: a thread each, and one client for both sides of the deferral.
                job, log = await asyncio.to_thread(self._look, jobs)
                shown = await self._show(log, shown)
                problem = await asyncio.to_thread(waiting.problem, jobs, job)
                if problem or job["status"] in ENDED:
                    return problem
                answered = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - answered > PATIENCE_S:
                    raise
                self.log.warning("%s The job goes on; trying again.", error)
            await asyncio.sleep(self.poll_interval)

    def _look(self, jobs: RayJobs) -> tuple[Job, str]:
        """The job, and of its log all whole lines. Raises JobsError if the cluster does not know it."""
        job = jobs.find(self.submission_id)
        if job is None:
            raise JobsError(f"The cluster at {jobs.address} does not know job {self.submission_id}: it was started anew since.")
        # The log after the status: the log of a job that has ended is whole.
        log = jobs.log(self.submission_id)
        return job, log if job["status"] in ENDED else log[: log.rfind("\n") + 1]

    async def _show(self, log: str, shown: int) -> int:
        """Log what comes after the first `shown` characters; returns how many are shown then."""
        for line in log[shown:].splitlines():
            self.log.info("%s", line)
        if len(log) > shown:
            await BaseXCom.aset(value=len(log), **self.bookmark)
        return max(shown, len(log))
