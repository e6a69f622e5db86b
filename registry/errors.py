"""What can go wrong between a trained model and its use."""

from nightprice.errors import NightpriceError


class ArtifactError(NightpriceError):
    """A model folder that must not be used: incomplete, changed, or of another format than this version reads."""


class RegistryError(NightpriceError):
    """A registry that does not hold what was asked for, or can't be used."""


class ConflictError(RegistryError):
    """Somebody else was faster: nothing was written. Look at what they did before trying again."""


class UnreachableError(RegistryError):
    """The store did not answer as a store should: the same call may work later."""
