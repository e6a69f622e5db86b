"""What every test stands on: the environment Ray reads when it is imported, and one cluster for the session."""

import os

os.environ.update(
    {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "OMP_NUM_THREADS": "1",
    }
)

from collections.abc import Iterator

import pytest

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
