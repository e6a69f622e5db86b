"""What can be known before Ray starts: a mistyped address, model or file ends a command at once, with exit code 2."""

from typing import TYPE_CHECKING

from nightprice.address import parse_address
from nightprice.job_folder import check_outlives_job
from nightprice.ray_environment import configure_pipeline

if TYPE_CHECKING:
    from pipeline.settings import Settings


def check_contract(settings: "Settings") -> None:
    """Raise UsageError for a contract that can't be loaded, ContractError for one that is wrong."""
    settings.load_contract()


def check_label(settings: "Settings") -> None:
    """Raise as `check_contract` does, and UsageError for bins, labels or a minimum that don't fit the contract."""
    settings.label(settings.load_contract())


def check_source(text: str) -> None:
    """Raise AddressError for an address that no store reads, or local files that do not exist."""
    configure_pipeline()  # Ray, which stores import, reads it then
    from pipeline.io.stores import store_of

    address = parse_address(text)
    store_of(address)
    if address.scheme == "file":
        from pipeline.io.files.locate import find_files

        find_files(address)


def check_sink(text: str, source: str) -> None:
    """Raise UsageError for an address that can't be written to, that is lost with the job that writes it, or that lies
    in a local source.
    """
    configure_pipeline()
    from pipeline.io.files.locate import check_apart
    from pipeline.io.stores import check_writable

    address, origin = parse_address(text), parse_address(source)
    check_outlives_job(address.local, address.display)
    check_writable(address)
    if address.local and origin.local:
        check_apart(origin, address)


def check_dataset(text: str) -> None:
    """Raise AddressError for a local folder that is not a processed dataset."""
    configure_pipeline()
    from pipeline.io.stores import open_published, store_of

    address = parse_address(text)
    store_of(address)
    if address.scheme == "file":
        open_published(address)


def check_model(ref: str, settings: "Settings") -> None:
    """Raise RegistryError for a reference or a folder that is not a model."""
    from registry.references import is_reference
    from registry.registry import Registry

    registry = Registry(settings.registry, settings.cache_dir)
    registry.resolve(ref) if is_reference(ref) else registry.load(ref)


def check_training(settings: "Settings", holdout_ids: str | None) -> None:
    """Raise UsageError for a registry that is lost with this job, or a file of ids that can't be read."""
    from pipeline.split import read_split
    from registry.registry import Registry

    read_split(holdout_ids, settings.holdout_share)
    Registry(settings.registry, settings.cache_dir).check_writable()
