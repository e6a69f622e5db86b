"""What every test stands on: the environment Ray reads when it is imported, and one cluster for the session."""

import os

from nightprice.ray_environment import LOCAL_PIPELINE, PIPELINE, configure

# Before anything imports Ray. The tests' own cluster is on this machine, whatever RAY_ADDRESS says.
configure(PIPELINE, LOCAL_PIPELINE)
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

pytest_plugins = [
    "tests.support.s3_server",
    "tests.support.postgres_server",
    "tests.support.bigquery_server",
    "tests.support.ray_head",
]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small cluster for all tests that need Ray."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()
