"""The errors between a trained model and its use."""

from nightprice.errors import NightpriceError


class ArtifactError(NightpriceError):
    """A model folder that must not be used: incomplete, changed, or of another format than this version reads."""


class RegistryError(NightpriceError):
    """A registry without the requested model, version or alias, or one that can't be used."""


class ConflictError(RegistryError):
    """Another process was faster, and nothing was written. Check what it did before trying again."""


class UnreachableError(RegistryError):
    """A transient failure of the store: the same call may work later."""
