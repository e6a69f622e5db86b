"""Errors of the pipeline that end with an exit code of their own."""

from nightprice.errors import NightpriceError


class GateRefused(NightpriceError):
    """A gate refused: too many rejected rows, or a challenger that is not better. Nothing live has changed."""

    exit_code = 3
