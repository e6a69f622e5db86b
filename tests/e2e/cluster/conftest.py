"""One cluster of four nodes for all tests of this folder."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.cluster import ray_cluster
from tests.support.paths import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ten minutes and more and root's rights: only on demand."""
    if "NIGHTPRICE_TEST_CLUSTER" not in os.environ:
        for item in items:
            if "e2e/cluster" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="NIGHTPRICE_TEST_CLUSTER=1 starts a cluster of four hosts"))


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ray_cluster.Cluster]:
    """A head and three workers of two CPUs."""
    needed = [name for name in ("unshare", "nsenter", "ip", "ssh-keygen") if shutil.which(name) is None]
    if needed or os.geteuid():
        pytest.skip(f"needs root's rights, and {', '.join(needed) or 'nothing else'}")
    os.chdir(ROOT)
    with ray_cluster.cluster(tmp_path_factory.mktemp("hosts"), workers=3) as made:
        yield made
