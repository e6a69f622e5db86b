"""The pipeline's steps as jobs of a running cluster with token authentication, and what its dashboard then says of
them.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.registry import Registry
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.ray_head import Cluster
from transforms.listings.generate import generate

SCHEDULE = (ROOT / "docs/schedule.md").read_text()


@pytest.fixture(scope="module")
def processed(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A folder with a dataset that a job has made, and what its submission said."""
    folder = tmp_path_factory.mktemp("job")
    generate(1_000, folder / "raw", shards=2)
    return folder, cluster.submit("--id", "first", "process", "--source", folder / "raw", "--sink", folder / "dataset")


def test_process_runs_as_a_job_and_joins_its_cluster(cluster: Cluster, processed: Any) -> None:
    folder, done = processed

    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((folder / "dataset" / "manifest.json").read_text())
    assert manifest["rows"]["read"] == 1_000
    assert f'"version": "{manifest["version"]}"' in done.stdout
    assert "Joining Ray" in done.stdout
    assert cluster.job("first")["metadata"] | {"code": "", "submitted_by": ""} == {
        "job_name": "nightprice process",
        "step": "process",
        "code": "",
        "submitted_by": "",
    }


def test_the_same_id_is_followed_and_not_started_again(cluster: Cluster, processed: Any) -> None:
    folder, _ = processed
    before = (folder / "dataset" / "manifest.json").read_text()

    again = cluster.submit("--id", "first", "process", "--source", folder / "raw", "--sink", folder / "dataset")

    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(before)["version"] in again.stdout
    assert (folder / "dataset" / "manifest.json").read_text() == before


def test_a_step_ends_with_its_own_exit_code(cluster: Cluster, processed: Any) -> None:
    folder, _ = processed

    refused = cluster.submit(
        "process", "--source", folder / "raw", "--sink", folder / "other", NIGHTPRICE_MAX_REJECTED="0"
    )

    assert refused.returncode == 3
    assert "more than the 0.0% allowed" in refused.stdout


def test_a_wrong_token_starts_nothing_and_says_what_to_do(cluster: Cluster) -> None:
    done = cluster.submit("process", "--source", "raw", "--sink", "dataset", RAY_AUTH_TOKEN="wrong" * 10)

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {cluster.dashboard} takes no jobs: ")
    assert "bring the cluster's token" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_address_that_is_given_counts_and_not_that_of_the_environment(cluster: Cluster) -> None:
    (port,) = free_ports(1)

    done = cluster.submit("--address", f"http://127.0.0.1:{port}", "promote", "listing-price@champion")

    assert done.returncode == 1
    assert "Failed to connect" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def scheduled(
    cluster: Cluster, processed: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Callable[[str], list[str]], list[str]]:
    """The script of docs/schedule.md by the name of a run; what "week-1" gave: the dataset's version, the champion
    and why it is that.
    """
    folder = tmp_path_factory.mktemp("retraining")
    (script,) = re.findall(r"^```sh\n(.*?)^```", SCHEDULE, re.MULTILINE | re.DOTALL)
    (folder / "retrain.sh").write_text(script.replace("/opt/nightprice", str(ROOT)).replace("s3://bucket", str(folder)))
    (folder / "raw").symlink_to(processed[0] / "raw")
    variables = {"NIGHTPRICE_XGBOOST__ROUNDS": "3", "NIGHTPRICE_HOLDOUT_SHARE": "0.3"}
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(name: str) -> list[str]:
        done = cluster.run("bash", folder / "retrain.sh", name, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        record = Registry(str(folder / "models")).current("listing-price", "champion")
        assert record is not None
        return [json.loads((folder / "dataset/manifest.json").read_text())["version"], record.version, record.why]

    return run, run("week-1")


def test_the_dashboard_shows_datasets_and_trainings_by_name(cluster: Cluster, scheduled: Any) -> None:
    jobs = {step: cluster.job(f"week-1-{step}")["job_id"] for step in ("process", "train")}
    shown = {step: cluster.get(f"/api/data/datasets/{job}")["datasets"] for step, job in jobs.items()}

    names = {step: sorted(found["dataset"].partition("_")[0] for found in datasets) for step, datasets in shown.items()}
    assert names == {"process": ["process"], "train": ["evaluate", "statistics", "train"]}
    operators = [
        operator["operator"] for datasets in shown.values() for found in datasets for operator in found["operators"]
    ]
    assert [name for name in operators if "lambda" in name] == []
    (run,) = cluster.get("/api/train/v2/runs/v1")["train_runs"]
    assert run["name"].startswith("listing-price-")
    assert run["name"].endswith("-xgboost")
    assert run["status"] == "FINISHED"


def test_the_script_of_the_schedule_retrains_and_repeats_nothing_when_started_again(
    cluster: Cluster, scheduled: tuple[Callable[[str], list[str]], list[str]]
) -> None:
    retrain, first = scheduled
    jobs = len(cluster.get("/api/jobs/"))

    assert "scheduled: nothing is in force there yet" in first[2]
    assert retrain("week-1") == first
    assert len(cluster.get("/api/jobs/")) == jobs
    # The same listings give the same model, which is not better: refused, and no failure.
    dataset, *champion = retrain("week-2")
    assert dataset != first[0]
    assert champion == first[1:]
    assert cluster.job("week-2-promote")["driver_exit_code"] == 3


def test_cron_starts_no_run_beside_one_that_goes_on(tmp_path: Path) -> None:
    (line,) = re.findall(r"^0 4 \* \* 1 +(flock .*) >>", SCHEDULE, re.MULTILINE)
    line = line.replace("/run/lock/nightprice", "lock")
    (tmp_path / "retrain.sh").write_text("#!/bin/sh\ntouch started\n")
    (tmp_path / "retrain.sh").chmod(0o755)

    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert subprocess.run(line, shell=True, cwd=tmp_path, check=False).returncode == 1
    assert not (tmp_path / "started").exists()

    assert subprocess.run(line, shell=True, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "started").exists()
