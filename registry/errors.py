"""The errors between a trained model and its use."""

from nightprice.errors import NightpriceError, UsageError


class ArtifactError(NightpriceError):
    """A model folder that must not be used: incomplete, changed, or of another format than this version reads."""


class RegistryError(NightpriceError):
    """A registry without the requested model, version or alias, or one that can't be used."""


class RegistryUsageError(RegistryError, UsageError):
    """A reference, an alias or an address that can't be right, or a promotion that has to be forced."""


class ConflictError(RegistryError):
    """Another process was faster, and nothing was written. Check what it did before trying again."""


class UnreachableError(RegistryError):
    """A transient failure of the store: the same call may work later."""


class MissingRegistryError(UnreachableError, RegistryUsageError):
    """A folder that does not exist: mistyped, or made later by the first training."""
