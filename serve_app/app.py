"""The deployment on Ray Serve: `serve run serve_app.app:app`, or `serve deploy deploy/serve_config.yaml`.

serve run serve_app.app:app model=listing-price@champion registry=/srv/models max_replicas=4
"""

import logging
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.schema import LoggingConfig

from registry.registry import Registry
from serve_app.api import Api
from serve_app.follow import Follower
from serve_app.metrics import RayMetrics
from serve_app.options import OptionsError, ServeOptions, load_options

NAME = "nightprice"
RETRY_AFTER_S = 1.0


@serve.ingress()
class Prediction:
    """One replica: the model it follows, behind the HTTP API."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """`arguments` are the options without the keys, which every replica reads from its own environment."""
        # Ray Serve itself writes a line for each request at this level; we say only what matters.
        logging.getLogger("ray.serve.nightprice").setLevel(logging.INFO)
        self._options = load_options(**arguments)
        if self._options.keys_required and not self._options.api_keys:
            raise OptionsError("Callers need keys, but NIGHTPRICE_SERVE_API_KEYS is not set where this replica runs. Set it on every node.")
        self._metrics = RayMetrics()
        registry = Registry(self._options.registry, self._options.cache_dir)
        self._follower = Follower(
            registry,
            self._options.model,
            poll_seconds=self._options.poll_seconds,
            threads=self._options.threads,
            metrics=self._metrics,
        )
        self._follower.start()

    def __serve_build_asgi_app__(self) -> Api:
        """What Ray Serve calls for the application, after the constructor."""
        return Api(self._follower, self._options, self._metrics, sends_request_id=False)

    def __del__(self) -> None:
        if hasattr(self, "_follower"):
            self._follower.stop()
            self._metrics.stop()


def app(arguments: dict[str, Any]) -> Application:
    """The application; `arguments` are options of the service by name (`serve_app.options`). Raises OptionsError."""
    return build(load_options(**arguments))


def build(options: ServeOptions) -> Application:
    """The application with these options."""
    deployment = serve.deployment(
        name=NAME,
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": options.num_cpus},
        logging_config=LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False),
        **_replicas(options),
    )(Prediction)
    application: Application = deployment.bind(options.arguments())
    return application


def _replicas(options: ServeOptions) -> dict[str, Any]:
    if options.min_replicas == options.max_replicas:
        return {"num_replicas": options.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=options.target_ongoing_requests,
            upscale_delay_s=options.upscale_delay_s,
            downscale_delay_s=options.downscale_delay_s,
        )
    }
