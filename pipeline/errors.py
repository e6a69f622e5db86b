"""Errors of the pipeline that end with an exit code of their own."""

from transforms.errors import NightpriceError


class UsageError(NightpriceError):
    """The command was called with something that cannot be right."""

    exit_code = 2


class GateRefused(NightpriceError):
    """A gate said no: too many rejected rows, or a challenger that is not better. Nothing live has changed."""

    exit_code = 3
