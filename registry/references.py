"""How a model is named everywhere: NAME@SELECTOR, where the selector is a version, an alias or "latest"."""

import re
from dataclasses import dataclass

from nightprice.defaults import DEFAULT_CONTRACT_NAME, NAME_PATTERN
from registry import CHAMPION
from registry.errors import RegistryUsageError

LATEST = "latest"
"""The selector of the newest version. It is not an alias: nobody sets it."""

# A version starts with a digit and an alias with a letter: a reference can't be read in two ways.
VERSION_PATTERN = r"[0-9][A-Za-z0-9._-]*"
_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_REFERENCE = re.compile(rf"({_NAME.pattern})@({_NAME.pattern})")

SYNTAX = f"NAME@ALIAS, NAME@VERSION or NAME@{LATEST}, as in {DEFAULT_CONTRACT_NAME}@{CHAMPION}"
"""For messages."""


@dataclass(frozen=True)
class ModelRef:
    """A model by its name and one of its versions, aliases, or "latest".

    >>> ModelRef.parse("example@champion")
    ModelRef(name='example', selector='champion')
    >>> [ModelRef.parse(f"example@{selector}").is_alias for selector in ("champion", "20260101", "latest")]
    [True, False, False]
    """

    name: str
    selector: str

    @classmethod
    def parse(cls, text: str) -> "ModelRef":
        """Read NAME@SELECTOR. Raises RegistryUsageError for anything else."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise RegistryUsageError(f'"{text}" is not a model reference. Write {SYNTAX}.')
        return cls(*match.groups())

    @property
    def is_version(self) -> bool:
        """Whether it names one version, which never changes."""
        return is_version_name(self.selector)

    @property
    def is_latest(self) -> bool:
        return self.selector == LATEST

    @property
    def is_alias(self) -> bool:
        return not self.is_version and not self.is_latest

    def __str__(self) -> str:
        return f"{self.name}@{self.selector}"


def is_reference(text: str) -> bool:
    """Whether a text is a model reference; any other text that names a model is a folder.

    >>> is_reference("example@latest"), is_reference("./models/mine")
    (True, False)
    """
    return _REFERENCE.fullmatch(text) is not None


def is_version_name(text: str) -> bool:
    """Whether a text can name a version.

    >>> is_version_name("20260101"), is_version_name(".cache")
    (True, False)
    """
    return _VERSION.fullmatch(text) is not None


def version_path(name: str, version: str) -> str:
    """The folder of a version in a registry. Raises RegistryUsageError for a text that can't be its name.

    >>> version_path("example", "20260101")
    'example/versions/20260101'
    """
    _check(_NAME, name, "a model", "a letter or digit")
    _check(_VERSION, version, "a version", "a digit")
    return f"{name}/versions/{version}"


def alias_path(name: str, alias: str) -> str:
    """The folder of an alias in a registry. Raises RegistryUsageError for a text that can't be its name.

    >>> alias_path("example", "champion")
    'example/aliases/champion'
    """
    _check(_NAME, name, "a model", "a letter or digit")
    _check(_ALIAS, alias, "an alias", "a letter")
    return f"{name}/aliases/{alias}"


def _check(pattern: re.Pattern[str], text: str, what: str, first: str) -> None:
    if not pattern.fullmatch(text):
        raise RegistryUsageError(
            f'"{text}" can\'t name {what}. Start with {first}, then letters, digits, ".", "_" and "-".'
        )
