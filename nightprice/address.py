"""Addresses as they are shown."""

from urllib.parse import urlsplit


def without_password(uri: str) -> str:
    """An address fit for logs and manifests: what may be a secret in it is left out.

    >>> without_password("postgresql://ann:secret@db/prices"), without_password("https://host/listings.csv?signature=secret")
    ('postgresql://ann@db/prices', 'https://host/listings.csv')
    """
    try:
        parts = urlsplit(uri)
    except ValueError:  # no address at all: whoever opens it will say so
        return uri
    if parts.scheme in ("http", "https"):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    if parts.password is None:
        return uri
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{host}").geturl()
