"""What `cluster.yaml` and deploy/node.env set."""

import shlex
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config

from tests.support.paths import ROOT


def cluster_config() -> dict[str, Any]:
    """The file as `ray up` reads it, with Ray's defaults."""
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    return config


def node_env() -> dict[str, str]:
    """The variables of deploy/node.env, as a shell reads them."""
    lines = [line for line in (ROOT / "deploy/node.env").read_text().splitlines() if line and not line.startswith("#")]
    return dict(shlex.split(line)[0].split("=", 1) for line in lines)
