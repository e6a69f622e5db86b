"""The manifests for KubeRay: valid by its published schemas, and in agreement with the rest of the project."""

import gzip
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from ray.serve.schema import ServeDeploySchema

from pipeline.cli.commands import app
from tests.support.cluster.config import node_env
from tests.support.paths import ROOT, TEST_DATA

MANIFESTS = sorted((ROOT / "deploy/kuberay").glob("*.yaml"))
SCHEMAS = TEST_DATA / "kuberay-1.7.0"
with_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(),
    reason="NIGHTPRICE_TEST_DATA holds no schemas of KubeRay",
)


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / f"deploy/kuberay/{name}.yaml").read_text())
    return loaded


def job(name: str) -> dict[str, Any]:
    """The job of a manifest, scheduled or not."""
    spec = manifest(name)["spec"]
    found: dict[str, Any] = spec.get("jobTemplate", spec)
    return found


def cluster(name: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        manifest("service")["spec"]["rayClusterConfig"] if name == "service" else job(name)["rayClusterSpec"]
    )
    return found


def pods(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (of["headGroupSpec"], *of["workerGroupSpecs"]):
        yield group["template"]["spec"]


@cache
def schema(kind: str) -> jsonschema.Draft7Validator:
    """The published schema of a kind, in which a field that it does not name is an error, as to the API server when
    strict.
    """
    # Hundreds of pages: seconds for the loader written in Python.
    definition = yaml.load(
        gzip.decompress((SCHEMAS / f"ray.io_{kind.lower()}s.yaml.gz").read_bytes()), yaml.CSafeLoader
    )
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    return jsonschema.Draft7Validator(closed(version["schema"]["openAPIV3Schema"]))


def closed(part: Any) -> Any:
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    inner = {name: closed(value) for name, value in part.items()}
    if "properties" in part and not part.keys() & {"additionalProperties", "x-kubernetes-preserve-unknown-fields"}:
        inner["additionalProperties"] = False
    return inner


@with_schemas
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kuberay_knows_every_field(path: Path) -> None:
    loaded = manifest(path.stem)

    schema(loaded["kind"]).validate(loaded)


@with_schemas
def test_a_misspelt_field_deep_inside_would_be_found() -> None:
    loaded = manifest("service")
    next(pods(loaded["spec"]["rayClusterConfig"]))["containers"][0]["livenessprobe"] = {}

    with pytest.raises(jsonschema.ValidationError, match="livenessprobe"):
        schema("RayService").validate(loaded)


def test_the_service_is_that_of_the_serve_config() -> None:
    here = yaml.safe_load(manifest("service")["spec"]["serveConfigV2"])
    there = yaml.safe_load((ROOT / "deploy/serve_config.yaml").read_text())

    ServeDeploySchema.model_validate(here)
    arguments = there["applications"][0]["args"]
    there["applications"][0]["args"] = arguments | {"registry": "s3://BUCKET/models", "keys_required": True}
    assert here == there


@pytest.mark.parametrize("name", ["service", "process", "train", "schedule"])
def test_every_pod_has_the_settings_of_a_node(name: str) -> None:
    wanted = {variable: value for variable, value in node_env().items() if variable != "RAY_AUTH_MODE"}

    for pod in pods(cluster(name)):
        (container,) = pod["containers"]
        assert {variable["name"]: variable["value"] for variable in container["env"]} == wanted
    assert cluster(name)["authOptions"] == {"mode": "token"}


def test_all_jobs_run_on_the_same_kind_of_cluster() -> None:
    assert cluster("process") == cluster("train") == cluster("schedule")


@pytest.mark.parametrize("name", ["process", "train", "schedule"])
def test_every_command_is_one_of_the_pipeline_with_options_that_it_has(name: str) -> None:
    lines = [shlex.split(line.partition("||")[0], comments=True) for line in job(name)["entrypoint"].splitlines()]
    steps = [line[3:] for line in lines if line[:3] == ["python", "-m", "pipeline"]]

    assert steps
    for step, *options in steps:
        command = typer.main.get_command(app).commands[step]  # type: ignore[attr-defined]
        command.make_context(step, [option for option in options if option != ">" and not option.endswith(".json")])


@pytest.mark.parametrize("name", ["process", "train", "schedule"])
def test_a_script_of_several_lines_reaches_the_cluster_whole(name: str) -> None:
    assert len(job(name)["entrypoint"].splitlines()) == 1 or job(name)["submissionMode"] == "HTTPMode"


def test_the_service_takes_no_requests_before_a_replica_does_and_ends_after_it() -> None:
    _, worker = pods(cluster("service"))

    assert worker["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8000}
    assert worker["terminationGracePeriodSeconds"] > int(node_env()["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])


@pytest.mark.parametrize("name", ["service", "process", "train", "schedule"])
def test_no_pod_gets_variables_for_the_services_of_its_namespace(name: str) -> None:
    assert [pod.get("enableServiceLinks") for pod in pods(cluster(name))] == [False, False]
