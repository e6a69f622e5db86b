"""Submit one step of the pipeline to a cluster as a Ray job, follow it, and end with the step's own exit code.

python deploy/submit.py process --source s3://bucket/raw --sink s3://bucket/dataset
python deploy/submit.py --id retrain-2026-48 train --data s3://bucket/dataset --registry s3://bucket/models --workers 4

Needs nothing but `ray[default]` in the cluster's version. Exit codes: those of `nightprice` (0 done, 1 failed, 2
wrong usage, 3 refused by a gate). An id that the cluster knows is followed, not started twice: a schedule may try
again with the same id.
"""

import argparse
import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray.job_submission import JobDetails, JobSubmissionClient

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("process", "train", "evaluate", "promote", "predict")
ADDRESS = "http://127.0.0.1:8265"


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, or follow what runs under the id already; returns the step's exit code."""
    options = parse(arguments)
    # To Ray these variables count for more than an address that is given: the job would go to another cluster.
    os.environ["RAY_API_SERVER_ADDRESS"] = options.address
    problem = "takes no jobs"
    try:
        client = JobSubmissionClient(options.address)
        if find(client, options.id) is None:
            print(f"Submitting {options.id} to {options.address}", file=sys.stderr, flush=True)
            client.submit_job(**request(options))
        problem = f"does not say what became of {options.id}"
        asyncio.run(show_log(client, options.id))
        job = find(client, options.id)
    except KeyboardInterrupt:
        print(
            f"{options.id} goes on. Follow it with --id {options.id}, or end it with `ray job stop`.", file=sys.stderr
        )
        return 130
    except Exception as error:  # of Ray, of requests: all of them are one sentence for an operator
        print(f"Error: {options.address} {problem}: {reason(error)} {advice(error)}", file=sys.stderr)
        return 1
    if job is None:  # the head began anew
        print(f"Error: {options.address} does not know {options.id} any more.", file=sys.stderr)
        return 1
    print(f"{options.id}: {job.status}. {job.message or ''}".rstrip(), file=sys.stderr)
    return exit_code(job)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a submission, then the step with its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_API_SERVER_ADDRESS", ADDRESS),
        help="the dashboard (default: %(default)s)",
    )
    parser.add_argument("--id", help="submission id (default: nightprice-STEP-TIME)")
    parser.add_argument(
        "--in-image", action="store_true", help="run the code of the nodes' image, not that of this folder"
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        metavar="…",
        help="the step's own options, as `nightprice STEP --help` has them",
    )
    options = parser.parse_args(arguments)
    options.id = options.id or f"nightprice-{options.step}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:4]}"
    return options


def find(client: JobSubmissionClient, submission_id: str) -> JobDetails | None:
    """What the cluster knows of a submission."""
    return next((job for job in client.list_jobs() if job.submission_id == submission_id), None)


def request(options: argparse.Namespace) -> dict[str, Any]:
    """What starts the step: the arguments of `JobSubmissionClient.submit_job`."""
    code = {} if options.in_image else {"working_dir": str(ROOT)}
    return {
        "entrypoint": shlex.join(["python", "-m", "pipeline", options.step, *options.rest, "--json"]),
        "submission_id": options.id,
        "runtime_env": {**code, **runtime_env()},
        "metadata": metadata(options),
    }


async def show_log(client: JobSubmissionClient, submission_id: str) -> None:
    """Print what the job prints, to its end."""
    async for part in client.tail_job_logs(submission_id):
        print(part, end="", flush=True)


def metadata(options: argparse.Namespace) -> dict[str, str]:
    """What the dashboard and `ray job list` show beside the job."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    code = "of the image" if options.in_image else commit.stdout.strip() or "unknown"
    return {"job_name": f"nightprice {options.step}", "step": options.step, "code": code, "submitted_by": user()}


def user() -> str:
    """Who submits, by name; by number where the number has no name, as in many containers."""
    try:
        return getuser()
    except (KeyError, OSError):  # before Python 3.13, and since
        return str(os.getuid())


def runtime_env() -> dict[str, Any]:
    """The settings of this shell, for the job. Everybody who sees the dashboard sees them: no keys of the service."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("NIGHTPRICE_")}
    return {"env_vars": {name: value for name, value in settings.items() if not name.startswith("NIGHTPRICE_SERVE_")}}


def exit_code(job: JobDetails) -> int:
    """The step's own exit code; 1 for a job that was stopped or never started."""
    if job.status == "SUCCEEDED":
        return 0
    code = job.driver_exit_code
    return code if code is not None and code > 0 else 1


def reason(error: Exception) -> str:
    """One line of an error that may bring a whole page: of a trace the last, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")] or [type(error).__name__]
    return lines[-1] if "Traceback" in lines[0] else lines[0]


def advice(error: Exception) -> str:
    """What to do."""
    if "oken" in str(error) or "Authentication" in type(error).__name__:
        return (
            "Set RAY_AUTH_MODE=token, and bring the cluster's token to ~/.ray/auth_token or RAY_AUTH_TOKEN; for a "
            "cluster without one set RAY_AUTH_MODE=disabled."
        )
    if "status code 413" in str(error):
        return f"Move what is no code, such as data, out of {ROOT} or name it in .gitignore, or use --in-image."
    if "agent" in str(error):
        return "The head is starting, or its dashboard agent has failed (dashboard_agent.log there). Try again."
    return "Is the cluster up, and its dashboard forwarded to this machine (`ray dashboard cluster.yaml`)?"


if __name__ == "__main__":
    sys.exit(main())
