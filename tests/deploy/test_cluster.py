"""`cluster.yaml`: valid to Ray, launched at a stand-in of EC2, and with the same settings on every node."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import validate_config
from ray.serve.schema import ServeDeploySchema

from nightprice import ray_environment
from serve_app.app import NAME
from serve_app.deployment import environment
from tests.support.cluster.config import cluster_config, node_env
from tests.support.paths import ROOT

# What a node of a cluster has otherwise than a machine that serves alone.
OF_A_CLUSTER = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "30",
}


def test_ray_accepts_it() -> None:
    validate_config(cluster_config())


def test_ray_would_refuse_a_slip() -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(cluster_config() | {"idle_timeout_minute": 5})


def test_nothing_is_installed_on_a_node_besides_the_image() -> None:
    assert cluster_config()["worker_setup_commands"] == []


def test_every_file_that_nodes_get_is_there_or_made_by_the_operator() -> None:
    here = [path for path in cluster_config()["file_mounts"].values() if not path.startswith("~/")]

    assert here == ["deploy/node.env"]
    assert all((ROOT / path).is_file() for path in here)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_reads_its_settings_before_ray_starts(role: str) -> None:
    stop, start = cluster_config()[f"{role}_start_ray_commands"]

    assert stop == "ray stop"
    assert start.index(". ~/node.env") < start.index("ray start")
    assert "--metrics-export-port=8080" in start


def test_the_guide_keeps_replicas_on_nodes_of_the_service() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.DOTALL)
    config = yaml.safe_load((ROOT / "deploy/serve_config.yaml").read_text())
    config["applications"][0] |= yaml.safe_load(block)

    (deployment,) = ServeDeploySchema.model_validate(config).applications[0].deployments
    wanted = deployment.ray_actor_options.resources
    kinds = cluster_config()["available_node_types"]

    assert deployment.name == NAME
    assert [kind for kind, node in kinds.items() if wanted.keys() <= node["resources"].keys()] == ["service"]


def test_the_settings_are_those_of_the_service() -> None:
    of_the_service = ray_environment.COMMON | ray_environment.SERVE | environment.HAPROXY

    assert node_env() == of_the_service | OF_A_CLUSTER | {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The file as Ray completes it on AWS: image, network, security group and key found or made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with mock_aws():
        for name in ("nightprice-head", "nightprice-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=name)
        yield bootstrap_aws(deepcopy(cluster_config()))


def test_aws_starts_the_head_on_demand_and_pipeline_nodes_on_spot(aws: dict[str, Any]) -> None:
    provider = AWSNodeProvider(aws["provider"], "nightprice")

    for name, kind in aws["available_node_types"].items():
        provider.create_node(kind["node_config"], {"ray-user-node-type": name}, 1)

    found = boto3.client("ec2", region_name=aws["provider"]["region"]).describe_instances()
    started = {
        tag["Value"]: item for each in found["Reservations"] for item in each["Instances"] for tag in item["Tags"]
    }
    assert [started[name].get("InstanceLifecycle") for name in ("head", "service", "pipeline")] == [None, None, "spot"]
