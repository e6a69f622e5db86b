"""What every test stands on: the environment Ray reads when it is imported, and one cluster for the session."""

import os
import re
import sys
from pathlib import Path

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
    "tests.support.iceberg_catalog",
    "tests.support.ray_head",
]

# What `make check` leaves out: tests that start Ray, a server or a browser, by fixture or parameter; those that start
# commands, and two that generate for long, by the place they are in.
SLOW_FIXTURES = {"bigquery", "browser", "cluster", "postgres", "ray_session", "s3", "service"}
SLOW_FOLDERS = re.compile(r"tests/(benchmarks|deploy|e2e|pipeline/cli|serve_app/deployment)(/|$)")
SLOW_TESTS = re.compile(
    r"test_fuzz|test_cost|test_generate|test_the_service_needs_no_training_library"
    r"|memory_is_bounded|is_bounded_too|row_that_is_too_large|one_long_text|no_process_for_a_dashboard"
    r"|starts_ray_by_itself|without_prices_is_refused|no_rights_to_write"
    r"|\[(postgresql|s3)\b"
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: starts Ray, a server, a browser or a command; `make check` leaves it out")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where all is slow, the fast tests need not even import."""
    return True if config.option.markexpr == "not slow" and SLOW_FOLDERS.search(collection_path.as_posix()) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        slow = SLOW_FOLDERS.search(item.nodeid) or SLOW_TESTS.search(item.nodeid)
        if slow or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small cluster for all tests that need Ray."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _fast_tests_start_no_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("slow"):
        yield
        return
    before = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    yield
    after = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    assert before or not after, "starts Ray and is not marked slow"
