"""The deployment on Ray Serve: `serve run serve_app.app:app`, or `serve deploy deploy/serve_config.yaml`.

serve run serve_app.app:app model=NAME@champion registry=/srv/models max_replicas=4
"""

import logging
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.schema import LoggingConfig

from nightprice.errors import UsageError
from nightprice.machine import process_cpus
from registry.registry import Registry
from serve_app.deployment.autoscaling import LOOK_BACK_S, POLICY, REQUESTS_IN_HAND
from serve_app.deployment.environment import CONNECTIONS
from serve_app.errors import RETRY_AFTER_S
from serve_app.http.api import Api
from serve_app.http.middleware import FastPath
from serve_app.http.wire import App
from serve_app.metrics import RayMetrics
from serve_app.model.record import input_names
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions, load_options

# Below the logger of Ray Serve, so that it lands in the replica's log.
logger = logging.getLogger("ray.serve.nightprice")

NAME = "nightprice"


@serve.ingress()
class Prediction:
    """One replica: the model that it follows, behind the HTTP API."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """`arguments` are the options without the keys, which every replica reads from its own environment."""
        self._options = load_options(**arguments)
        # Ray Serve itself logs every request at INFO; we log only what matters.
        logger.setLevel(self._options.log_level)
        if self._options.keys_required and not self._options.api_keys:
            raise UsageError(
                "Callers need keys, but NIGHTPRICE_SERVE_API_KEYS is not set where this replica runs. Set it on "
                "every node."
            )
        if not self._options.is_local and not self._options.api_keys:
            logger.warning(
                "No keys: whoever reaches the service may call. Set NIGHTPRICE_SERVE_API_KEYS where the replicas run."
            )
        contract = self._options.load_contract()
        self._metrics = RayMetrics(input_names(contract))
        self._reloader = ModelReloader(
            Registry(self._options.registry, self._options.cache_dir),
            self._options.model_ref(),
            contract,
            poll_seconds=self._options.poll_seconds,
            threads=self._options.threads,
            metrics=self._metrics,
        )
        self._reloader.start()
        if self._options.model_required:
            # Not an error, which Ray would retry a few times only: the registry may be unreachable for long.
            self._reloader.wait()

    def __serve_build_asgi_app__(self) -> App:
        """What Ray Serve calls for the application, after the constructor."""
        self._api = FastPath.app = Api(self._reloader, self._options, self._metrics)
        return self._api

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What Ray Serve asks for every now and then, for the policy of autoscaling."""
        return {REQUESTS_IN_HAND: self._api.load.mean()}

    def __del__(self) -> None:
        if hasattr(self, "_reloader"):
            self._reloader.stop()
            self._metrics.stop()


def app(arguments: dict[str, Any]) -> Application:
    """The application; `arguments` are options of the service by name (`serve_app.options`). Raises UsageError.

    The address to listen at is Ray Serve's own option: here it counts as any.
    """
    return build(load_options(**{"host": "0.0.0.0", **arguments}))


def build(options: ServeOptions) -> Application:
    """The application with these options."""
    deployment = serve.deployment(
        name=NAME,
        # As many as HAProxy keeps connections: a client that sends its body slowly holds a slot for long. `Api` counts
        # the requests whose body is complete (max_ongoing_requests, max_queued_requests, max_small_requests).
        max_ongoing_requests=CONNECTIONS,
        max_queued_requests=options.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": options.num_cpus},
        logging_config=LoggingConfig(encoding="JSON", log_level="WARNING", enable_access_log=False),
        **_replicas(options),
    )(Prediction)
    application: Application = deployment.bind(options.arguments())
    return application


def _replicas(options: ServeOptions) -> dict[str, Any]:
    # `serve build` writes a configuration without a cluster.
    cpus = ray.cluster_resources().get("CPU", 1.0) if ray.is_initialized() else process_cpus()
    most = options.most_replicas(cpus)
    if most == options.min_replicas:
        return {"num_replicas": options.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=most,
            target_ongoing_requests=options.target_ongoing_requests,
            upscale_delay_s=options.upscale_delay_s,
            downscale_delay_s=options.downscale_delay_s,
            look_back_period_s=LOOK_BACK_S,
            # Shorter than that; replicas report by themselves.
            metrics_interval_s=1.0,
            policy=AutoscalingPolicy(policy_function=POLICY),
        )
    }
