"""Every test of the registry runs on a folder and on S3."""

from pathlib import Path

import pytest

from registry.registry import Registry
from tests.support.s3_server import Bucket
from tests.support.tiny_model import FIRST, NAME, Publish, tiny_artifact


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "registry")
    bucket: Bucket = request.getfixturevalue("s3")
    return f"{bucket.uri}/models"


@pytest.fixture
def registry(address: str, tmp_path: Path) -> Registry:
    return Registry(address, tmp_path / "cache")


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Publish:
    """Train and publish a tiny model: `publish(version, seed)`."""

    def run(version: str = FIRST, seed: int = 0) -> str:
        return registry.publish(tiny_artifact(tmp_path / f"trained-{version}-{seed}", version, seed), NAME)

    return run
