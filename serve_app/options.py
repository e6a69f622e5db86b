"""The options of the service: from `NIGHTPRICE_SERVE_…` variables, the command line or the arguments of a Serve
config.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from nightprice.defaults import DEFAULT_CACHE_DIR, DEFAULT_CONTRACT, DEFAULT_REGISTRY
from nightprice.settings import LayeredSettings, load, split_list
from registry import CHAMPION
from registry.references import is_reference
from transforms.contract import Contract, load_contract

Origin = Annotated[str, Field(pattern=r"^(\*|null|https?://[^/\s,]+)$")]
Positive = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65_535)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServeOptions(LayeredSettings):
    """What can be set about the service. API keys come from the environment only and never leave a process."""

    model_config = SettingsConfigDict(env_prefix="NIGHTPRICE_SERVE_")
    where_documented: ClassVar[str] = "docs/service.md lists the options of the service."

    contract: str = Field(
        DEFAULT_CONTRACT,
        validation_alias="NIGHTPRICE_CONTRACT",
        description="The problem: MODULE:NAME of a `Contract`, as in the pipeline's settings.",
    )
    model: str | None = Field(
        None,
        description="NAME@ALIAS is followed; NAME@VERSION and a folder stay. None: the contract's name@champion.",
    )
    registry: str = Field(
        DEFAULT_REGISTRY, min_length=1, description="Registry of models: a folder, s3://, gs:// or abfs://."
    )
    cache_dir: Path = Field(DEFAULT_CACHE_DIR, description="Where models of a registry in a cloud are kept.")
    model_required: bool = Field(
        False,
        description="A replica takes requests only once it has a model; else it answers 503, and /readyz says what it "
        "waits for.",
    )
    poll_seconds: float = Field(
        5.0, gt=0, description="How often a replica looks whether the alias names another version."
    )
    threads: Positive = Field(1, description="Threads that score in one replica.")

    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for all.")
    port: Port = Field(8000, description="Port to listen at.")
    metrics_host: Literal["127.0.0.1", "0.0.0.0"] = Field(
        "127.0.0.1", description="Where Ray, if it is started here, exports metrics: to this machine, or to all."
    )
    metrics_port: Port | None = Field(None, description="Port of the metrics. None: the first free one from 9400 on.")

    min_replicas: Positive = Field(1, description="Replicas that always run.")
    max_replicas: Positive | None = Field(
        None, description="Maximum number of replicas. None: as many as the CPUs of the cluster allow."
    )
    target_ongoing_requests: float = Field(
        2.0, gt=0, description="Requests that a replica has in hand, on average, that autoscaling aims at."
    )
    upscale_delay_s: float = Field(2.0, ge=0, description="How long the load must be higher before replicas are added.")
    downscale_delay_s: float = Field(
        120.0, ge=0, description="How long the load must be lower before replicas are removed."
    )
    max_ongoing_requests: Positive = Field(
        2, description="Requests over 8 KiB or 1,000 values, and explanations, that a replica works on at once."
    )
    max_queued_requests: Annotated[int, Field(ge=0)] = Field(
        64, description="Those that may wait besides; more are answered 503 with Retry-After."
    )
    max_small_requests: Positive = Field(
        512, description="Smaller ones that may wait for a replica at once; more are answered 503 too."
    )
    num_cpus: float = Field(1.0, ge=0, description="CPUs that Ray sets aside for a replica.")

    max_body_bytes: Positive = Field(32 * 2**20, description="Largest body of a request.")
    max_rows: Positive = Field(100_000, description="Maximum number of records in one request.")
    max_held_bytes: Positive = Field(
        256 * 2**20,
        description="Bytes of bodies and answers that a replica holds at once, those up to 8 KiB aside; what would "
        "exceed them is answered 503.",
    )
    body_timeout_s: float = Field(20.0, gt=0, description="How long a client may take to send its body.")
    request_timeout_s: float = Field(
        60.0, gt=0, description="How long a request may take once its body is there, and a client to take its answer."
    )

    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split_list)] = Field(
        (), description="Origins whose pages may call the service from a browser, separated by commas; * for all."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="What a replica logs; DEBUG adds every refusal."
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_list)] = Field(
        (), description="Keys of callers, separated by commas; none: open to all."
    )
    keys_required: bool = Field(False, description="Refuse to start a replica that has no keys in its environment.")

    @model_validator(mode="after")
    def _check(self) -> "ServeOptions":
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}")
        if any(len(key.get_secret_value()) < 16 for key in self.api_keys):
            raise ValueError("an API key is shorter than 16 characters")
        return self

    def most_replicas(self, cpus: float) -> int:
        """The maximum number of replicas on a cluster of so many CPUs.

        >>> ServeOptions(num_cpus=0.5).most_replicas(4), ServeOptions(max_replicas=2).most_replicas(4)
        (8, 2)
        """
        return self.max_replicas or max(self.min_replicas, int(cpus / (self.num_cpus or 1)))

    @property
    def is_local(self) -> bool:
        """Whether only this machine is listened to."""
        return self.host in LOOPBACK

    def load_contract(self) -> Contract:
        """The contract in force. Raises UsageError if there is no such object, ContractError if it is wrong."""
        return load_contract(self.contract)

    def model_ref(self) -> str:
        """The model that is served: NAME@ALIAS, NAME@VERSION or a folder."""
        return self.model or f"{self.load_contract().name}@{CHAMPION}"

    def arguments(self) -> dict[str, Any]:
        """All but the keys, as plain values: what a deployment is given. Relative paths become absolute."""
        plain = self.model_dump(mode="json", exclude={"api_keys"})
        model = self.model_ref()
        return {
            **plain,
            "registry": self.registry if "://" in self.registry else _absolute(self.registry),
            "model": model if is_reference(model) else _absolute(model),
            "keys_required": self.keys_required or bool(self.api_keys),
        }


def load_options(**arguments: Any) -> ServeOptions:
    """The options in force: `arguments` (None: not given), then the environment, then the defaults.

    Raises UsageError, one sentence naming what is wrong.
    """
    return load(ServeOptions, **{name: value for name, value in arguments.items() if value is not None})


def variable(name: str) -> str:
    """The variable that sets an option.

    >>> variable("port"), variable("contract")
    ('NIGHTPRICE_SERVE_PORT', 'NIGHTPRICE_CONTRACT')
    """
    return ServeOptions.variable(name)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
