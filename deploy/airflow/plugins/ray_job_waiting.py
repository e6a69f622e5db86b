"""How long a Ray job may wait, and what it waits for."""

import time

from ray_jobs import Job, RayJobs


class Waiting:
    """The limits of one job, in seconds: until it starts, and altogether.

    Counted from when it is first looked at here: clocks of machines differ. A job waits to start also while no
    placement group of its driver (the workers of Ray Train) finds room: by its status it runs, but it does nothing and
    says nothing.
    """

    def __init__(self, start_timeout: float, run_timeout: float | None = None) -> None:
        self.start_timeout = start_timeout
        self.run_timeout = run_timeout
        self._since = time.monotonic()
        self._placed = False
        self._unplaced_since: float | None = None

    def problem(self, jobs: RayJobs, job: Job) -> str | None:
        """Why a job must be given up, and what its cluster says of resources, or None. Raises JobsError."""
        waited = time.monotonic() - self._since
        if job["status"] == "PENDING" and waited > self.start_timeout:
            outcome = f"did not start within {self.start_timeout:g} s. {job['message']}"
        elif job["status"] == "RUNNING" and self._finds_no_room(jobs, job):
            outcome = f"found no room for its workers within {self.start_timeout:g} s."
        elif job["status"] == "RUNNING" and self.run_timeout is not None and waited > self.run_timeout:
            outcome = f"did not end within {self.run_timeout:g} s."
        else:
            return None
        return f"Job {job['submission_id']} {outcome} The cluster says:\n{jobs.resources()}"

    def _finds_no_room(self, jobs: RayJobs, job: Job) -> bool:
        """Whether the job has had none of the placement groups that it asked for, for too long."""
        # There is no job_id before the driver has joined the cluster.
        states = jobs.placement_groups(job["job_id"]) if job["job_id"] and not self._placed else []
        self._placed = self._placed or "CREATED" in states
        if "PENDING" in states and self._unplaced_since is None:
            self._unplaced_since = time.monotonic()
        since = self._unplaced_since
        return not self._placed and since is not None and time.monotonic() - since > self.start_timeout
