"""What Ray reads from the environment, when it is imported or started.

This module does not import Ray: `configure` has to run before the first `import ray`. Values already in the
environment win.
"""

import os
from collections.abc import Mapping

# Every process.
COMMON = {
    # Ray turns token authentication on for a local cluster and leaves a token behind that other commands trip over.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run` Ray would start every worker through uv again.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# Ray Data and Ray Train.
PIPELINE = {
    # Ray starts 32 actors to read Parquet footers: 2 to 3 s on a small machine.
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # What goes wrong is raised as one sentence; Ray's core would also print its own view of it, and warnings.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# The same, where Ray runs on this machine alone: training starts and ends seconds sooner, and no node can be preempted.
LOCAL_PIPELINE = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
# Ray Serve, whatever proxy it uses (HAProxy's variables: `serve_app.deployment.environment`).
SERVE = {
    # A proxy that has not started after 3 times this is killed and begins anew: with 5 s a busy machine never
    # does.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",
    # Replicas report their load once a second, not every ten.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # glibc: the memory of a large body or answer goes back to the system. By default it keeps blocks of up to 32 MiB.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}
# Ray's own ports, metrics included, open to this machine only. The variable is documented for Windows and macOS, where
# this is the default.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def configure(*variables: Mapping[str, str]) -> None:
    """Set the variables of COMMON and of further tables that are not set yet.

    >>> configure({"RAY_AUTH_MODE": "token", "EXAMPLE": "1"}, {"EXAMPLE": "2"})
    >>> os.environ["RAY_AUTH_MODE"], os.environ.pop("EXAMPLE")
    ('disabled', '1')
    """
    for name, value in ((name, value) for table in (COMMON, *variables) for name, value in table.items()):
        os.environ.setdefault(name, value)


def configure_pipeline() -> None:
    """Set what Ray Data and Ray Train read, here and, without `RAY_ADDRESS`, on the cluster that will be started."""
    configure(PIPELINE, {} if "RAY_ADDRESS" in os.environ else LOCAL_PIPELINE)
