"""The options of the service: from `NIGHTPRICE_SERVE_…` variables, the command line or the arguments of a Serve
config.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nightprice.errors import NightpriceError, closest
from nightprice.variables import unread_variable
from registry.references import is_reference

PREFIX = "NIGHTPRICE_SERVE_"
Positive = Annotated[int, Field(ge=1)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class OptionsError(NightpriceError):
    """An option that can't be: wrong usage."""

    exit_code = 2


class ServeOptions(BaseSettings):
    """What can be set about the service. API keys come from the environment only and never leave a process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    model: str = Field("listing-price@champion", description="NAME@ALIAS is followed; NAME@VERSION and a folder stay.")
    registry: str = Field(
        "./nightprice-registry", min_length=1, description="Registry of models: a folder, s3://, gs:// or abfs://."
    )
    cache_dir: Path = Field(
        Path(platformdirs.user_cache_dir("nightprice")), description="Where models of a registry in a cloud are kept."
    )
    model_required: bool = Field(
        False,
        description="A replica takes requests only once it has a model; else it answers 503, and /readyz says what it waits for.",
    )
    poll_seconds: float = Field(
        5.0, gt=0, description="How often a replica looks whether the alias names another version."
    )
    threads: Positive = Field(1, description="Threads that score in one replica.")

    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for all.")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(8000, description="Port to listen at.")

    min_replicas: Positive = Field(1, description="Replicas that always run.")
    max_replicas: Positive = Field(1, description="Replicas at most.")
    target_ongoing_requests: float = Field(
        2.0, gt=0, description="Requests in hand per replica that autoscaling aims at."
    )
    upscale_delay_s: float = Field(5.0, ge=0, description="How long the load must be higher before replicas are added.")
    downscale_delay_s: float = Field(
        120.0, ge=0, description="How long the load must be lower before replicas are removed."
    )
    max_ongoing_requests: Positive = Field(
        2, description="Requests over 8 KiB, and explanations, that a replica works on at once."
    )
    max_queued_requests: Annotated[int, Field(ge=0)] = Field(
        64, description="Those that may wait besides; more are answered 503 with Retry-After."
    )
    max_small_requests: Positive = Field(
        512, description="Smaller ones that may wait for a replica at once; more are answered 503 too."
    )
    num_cpus: float = Field(1.0, ge=0, description="CPUs that Ray sets aside for a replica.")

    max_body_bytes: Positive = Field(32 * 2**20, description="Largest body of a request.")
    max_rows: Positive = Field(100_000, description="Most listings in one request.")
    body_timeout_s: float = Field(20.0, gt=0, description="How long a client may take to send its body.")
    request_timeout_s: float = Field(60.0, gt=0, description="How long a request may take in all.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="What a replica logs; DEBUG adds every refusal."
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys of callers, separated by commas; none: open to all."
    )
    keys_required: bool = Field(False, description="Refuse to start a replica that has no keys in its environment.")

    @model_validator(mode="before")
    @classmethod
    def _split_keys(cls, values: Any) -> Any:
        keys = values.get("api_keys") if isinstance(values, dict) else None
        if isinstance(keys, str):
            return {**values, "api_keys": tuple(filter(None, (key.strip() for key in keys.split(","))))}
        return values

    @model_validator(mode="after")
    def _check(self) -> "ServeOptions":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}")
        if any(len(key.get_secret_value()) < 16 for key in self.api_keys):
            raise ValueError("an API key is shorter than 16 characters")
        return self

    @property
    def autoscales(self) -> bool:
        """Whether the number of replicas follows the load."""
        return self.min_replicas < self.max_replicas

    @property
    def is_local(self) -> bool:
        """Whether only this machine is listened to."""
        return self.host in LOOPBACK

    def arguments(self) -> dict[str, Any]:
        """All but the keys, as plain values: what a deployment is given. Relative paths become absolute."""
        plain = self.model_dump(mode="json", exclude={"api_keys"})
        registry = self.registry if "://" in self.registry else _absolute(self.registry)
        model = self.model if is_reference(self.model) else _absolute(self.model)
        return {
            **plain,
            "registry": registry,
            "model": model,
            "keys_required": self.keys_required or bool(self.api_keys),
        }


def load_options(**given: Any) -> ServeOptions:
    """The options in force: those given (None: not given), then the environment, then the defaults.

    Raises OptionsError, one sentence naming what is wrong.
    """
    unknown = [name for name in given if name not in ServeOptions.model_fields]
    if unknown:
        raise OptionsError(f'There is no option "{unknown[0]}".{closest(unknown[0], ServeOptions.model_fields)}')
    if said := unread_variable(PREFIX, {variable(name) for name in ServeOptions.model_fields}):
        raise OptionsError(f"{said} Unset it; docs/service.md has the options of the service.")
    try:
        return ServeOptions(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise OptionsError(_sentence(error)) from None


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def variable(name: str) -> str:
    """The variable that sets an option.

    >>> variable("port")
    'NIGHTPRICE_SERVE_PORT'
    """
    return PREFIX + name.upper()


def _sentence(error: ValidationError) -> str:
    """What is wrong, without the values: one of them may be a key."""
    said = []
    for item in error.errors(include_url=False, include_input=False):
        name = ".".join(map(str, item["loc"]))
        said.append(f"{name}: {item['msg']}" if name else item["msg"].removeprefix("Value error, "))
    return f"Wrong options of the service: {'; '.join(said)}. Mend them on the command line or in {PREFIX}… variables."
