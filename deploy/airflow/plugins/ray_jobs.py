"""Ray's Jobs REST API, as much of it as a scheduler needs, with the HTTP client that Airflow brings; nothing of Ray
is installed here.
"""

import json
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
from airflow.sdk import Connection

Job = dict[str, Any]
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TIMEOUT_S = 30.0


class JobsError(Exception):
    """The cluster's dashboard did not do what it was asked."""


class Unreachable(JobsError):
    """Nothing answers, or not in time: it may later."""


class TokenRefused(JobsError):
    """The cluster's token is another one."""


@dataclass(frozen=True)
class RayJobs:
    """A cluster's jobs, by the address of its dashboard and its token. Every call raises JobsError.

    Each request has a connection of its own: a task that is killed stops its job from a signal handler, amid another
    request.
    """

    address: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, connection: Connection) -> "RayJobs":
        """The cluster that an Airflow connection names: host (or a whole address), port, and the token as password.

        Over HTTPS if the connection's type or schema says so; the port is 8265 unless given.
        """
        if not connection.host:
            raise JobsError(f'The connection "{connection.conn_id}" names no host. Give the host of the Ray dashboard.')
        if "://" in connection.host:
            port = f":{connection.port}" if connection.port else ""
            return cls(connection.host.rstrip("/") + port, connection.password)
        scheme = "https" if "https" in (connection.schema, connection.conn_type) else "http"
        return cls(f"{scheme}://{connection.host}:{connection.port or 8265}", connection.password)

    def find(self, submission_id: str) -> Job | None:
        """What the cluster knows of a job, and its `age` in seconds by the cluster's own clock; or None."""
        answer = self._request("GET", f"/api/jobs/{quote(submission_id, safe='')}", missing=404)
        if answer is None:
            return None
        job = dict(self._json(answer))
        return {**job, "age": _now_at(answer) - job["start_time"] / 1000}

    def submit(self, submission_id: str, **job: Any) -> None:
        """Start a job: `entrypoint`, `runtime_env`, `metadata`, and whatever else the API takes."""
        self._ask("POST", "/api/jobs/", json={"submission_id": submission_id, **job})

    def stop(self, submission_id: str) -> None:
        """Stop a job; one that has ended, or is not known, is left as it is."""
        self._ask("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop", missing=404)

    def log(self, submission_id: str) -> str:
        """All that the job has printed so far."""
        answer = self._ask("GET", f"/api/jobs/{quote(submission_id, safe='')}/logs", missing=404)
        return str(answer["logs"]) if answer else ""

    def placement_groups(self, job_id: str) -> list[str]:
        """The states of the placement groups that a job's driver has asked for."""
        query = {"filter_keys": "creator_job_id", "filter_predicates": "=", "filter_values": job_id}
        answer = self._ask("GET", "/api/v0/placement_groups", params=query)
        return [group["state"] for group in answer["data"]["result"]["result"]]

    def resources(self) -> str:
        """What the cluster has, and what it is asked for and can't give, as `ray status` says it."""
        status = str(self._ask("GET", "/api/cluster_status", params={"format": "1"})["data"]["clusterStatus"])
        return status[max(0, status.find("Total Usage:")) :].strip()

    def _ask(self, method: str, path: str, missing: int | None = None, **request: Any) -> Any:
        """The JSON of an answer, or None if its status is `missing`."""
        answer = self._request(method, path, missing, **request)
        return None if answer is None else self._json(answer)

    def _request(self, method: str, path: str, missing: int | None = None, **request: Any) -> httpx.Response | None:
        """A good answer, or None if its status is `missing`."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = httpx.request(method, self.address + path, headers=headers, timeout=TIMEOUT_S, **request)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise Unreachable(
                f"No Ray dashboard answers at {self.address}: {what}. Check the connection's host and port."
            ) from error
        if answer.status_code == missing:
            return None
        if answer.status_code in (401, 403):
            raise TokenRefused(
                f"{self.address} refuses the token. Put the cluster's token into the connection's password."
            )
        if not answer.is_success:
            raise JobsError(
                f"{self.address} answers {method} {path} with {answer.status_code}: {_last_line(answer.text)}"
            )
        return answer

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except json.JSONDecodeError as error:
            raise JobsError(
                f"What answers at {self.address} is no Ray dashboard. Check the connection's host and port."
            ) from error


def _now_at(answer: httpx.Response) -> float:
    """The time of whoever answers: its clock may be another than ours."""
    date = answer.headers.get("Date")
    # Its seconds are cut off; one more makes no job younger than it is.
    return parsedate_to_datetime(date).timestamp() + 1 if date else time.time()


def _last_line(text: str) -> str:
    """The last line of an error's text, which may be a whole trace."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")
