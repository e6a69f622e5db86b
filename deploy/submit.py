"""Submit one step of the pipeline to a cluster as a Ray job, follow it, and end with the step's own exit code.

python deploy/submit.py process --source s3://bucket/raw --sink s3://bucket/dataset
python deploy/submit.py --id retrain-2026-48 train --data s3://bucket/dataset --registry s3://bucket/models --workers 4

Needs nothing but `ray[default]` in the cluster's version. Exit codes: those of `nightprice` (0 done, 1 failed, 2
wrong usage,
3 refused by a gate). An id that the cluster knows is followed, not started twice: a schedule may try again with the
same id.
"""

import argparse
import json
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
RAY = str(Path(sys.executable).with_name("ray"))
STEPS = ("process", "train", "evaluate", "promote", "predict")
ADDRESS = "http://127.0.0.1:8265"


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, or follow what runs under the id already; returns the step's exit code."""
    options = parse(arguments)
    # To Ray these variables count for more than an address that is given: the job would go to another cluster.
    os.environ["RAY_API_SERVER_ADDRESS"] = options.address
    try:
        client = JobSubmissionClient(options.address)
        known = find(client, options.id)
    except Exception as error:  # of Ray, of requests: all of them are one sentence for an operator
        print(f"Error: {options.address} takes no jobs: {first_line(error)} {advice(error)}", file=sys.stderr)
        return 1
    line = follow_line(options) if known else submit_line(options)
    print("+", shlex.join(line), file=sys.stderr, flush=True)
    submitted = subprocess.run(line, cwd=ROOT, check=False).returncode
    try:
        job = find(client, options.id)
    except Exception as error:  # the head is gone, or begins anew
        print(
            f"Error: {options.address} does not say what became of {options.id}: {first_line(error)} {advice(error)}",
            file=sys.stderr,
        )
        return submitted or 1
    if job is None:
        return submitted or 1
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


def submit_line(options: argparse.Namespace) -> list[str]:
    """The command that starts the step."""
    line = [RAY, "job", "submit", "--address", options.address, "--submission-id", options.id]
    line += ["--metadata-json", json.dumps(metadata(options)), "--runtime-env-json", json.dumps(runtime_env())]
    if not options.in_image:
        line += ["--working-dir", "."]
    return [*line, "--", "python", "-m", "pipeline", options.step, *options.rest, "--json"]


def follow_line(options: argparse.Namespace) -> list[str]:
    """The command that shows the log of a job to its end."""
    return [RAY, "job", "logs", "--follow", "--address", options.address, options.id]


def metadata(options: argparse.Namespace) -> dict[str, str]:
    """What the dashboard and `ray job list` show beside the job."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    code = "of the image" if options.in_image else commit.stdout.strip() or "unknown"
    return {"job_name": f"nightprice {options.step}", "step": options.step, "code": code, "submitted_by": getuser()}


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


def first_line(error: Exception) -> str:
    """The first line of an error that may bring a whole page."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def advice(error: Exception) -> str:
    """What to do."""
    if "oken" in str(error) or "Authentication" in type(error).__name__:
        return "Set RAY_AUTH_MODE=token, and bring the cluster's token to ~/.ray/auth_token or RAY_AUTH_TOKEN."
    return "Is the cluster up, and its dashboard forwarded to this machine (`ray dashboard cluster.yaml`)?"


if __name__ == "__main__":
    sys.exit(main())
