"""Addresses as they are shown."""

from urllib.parse import urlsplit


def without_password(uri: str) -> str:
    """An address fit for logs and manifests.

    >>> without_password("postgresql://ann:secret@db/prices")
    'postgresql://ann@db/prices'
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # no address at all: whoever opens it will say so
        return uri
    if parts.password is None:
        return uri
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{host}").geturl()
