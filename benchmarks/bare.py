"""Our application under bare uvicorn, without Ray: `python -m benchmarks.bare REGISTRY PORT`."""

import sys

import uvicorn

from registry.registry import Registry
from serve_app.http.api import Api
from serve_app.metrics import RayMetrics
from serve_app.model.record import input_names
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from transforms.listings import CONTRACT


def main() -> None:
    registry, port = sys.argv[1:]
    options = ServeOptions(registry=registry, port=int(port))
    # It counts as a replica does, though nobody collects the counts here.
    metrics = RayMetrics(input_names(CONTRACT))
    reloader = ModelReloader(
        Registry(registry),
        options.model_ref(),
        CONTRACT,
        poll_seconds=options.poll_seconds,
        threads=options.threads,
        metrics=metrics,
    )
    reloader.start()
    api = Api(reloader, options, metrics)
    uvicorn.run(api, port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    reloader.stop()
    metrics.stop()


if __name__ == "__main__":
    main()
