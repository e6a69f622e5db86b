"""Our application under bare uvicorn, without Ray: `python -m benchmarks.bare REGISTRY PORT`."""

import sys

import uvicorn

from registry.registry import Registry
from serve_app.http.api import Api
from serve_app.metrics import RayMetrics
from serve_app.model.reloader import Follower
from serve_app.options import ServeOptions


def main() -> None:
    registry, port = sys.argv[1:]
    options = ServeOptions(registry=registry, port=int(port))
    # It counts as a replica does, though nobody collects the counts here.
    metrics = RayMetrics()
    follower = Follower(
        Registry(registry), options.model, poll_seconds=options.poll_seconds, threads=options.threads, metrics=metrics
    )
    follower.start()
    api = Api(follower, options, metrics)
    uvicorn.run(api, port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    follower.stop()
    metrics.stop()


if __name__ == "__main__":
    main()
