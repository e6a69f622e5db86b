"""The variables that Kubernetes sets in a pod for every Service of its namespace, unless `enableServiceLinks: false`.

A Service "nightprice-serve" means `NIGHTPRICE_SERVE_PORT=tcp://10.0.0.9:8000`, among others: they look like settings
and are not. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

import re
from collections.abc import Iterator, Mapping

_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
_LINK_OF_SERVICE = re.compile(
    r"_SERVICE_HOST|_SERVICE_PORT(?:_\w+)?|_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
)


def without_service_links(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables, but for those that Kubernetes sets. Names may be of either case.

    Links are recognised by their names and by what is set beside them: a setting of the same name stays.

    >>> link = {"NIGHTPRICE_SERVE_PORT": "tcp://10.0.0.9:8000", "NIGHTPRICE_SERVE_SERVICE_HOST": "10.0.0.9"}
    >>> without_service_links({**link, "NIGHTPRICE_SERVE_HOST": "0.0.0.0"})
    {'NIGHTPRICE_SERVE_HOST': '0.0.0.0'}
    >>> without_service_links({"NIGHTPRICE_SERVE_PORT": "8000"})
    {'NIGHTPRICE_SERVE_PORT': '8000'}
    """
    services = set(_services({name.upper(): value for name, value in variables.items()}))
    return {name: value for name, value in variables.items() if not _is_link(name.upper(), value, services)}


def _services(variables: Mapping[str, str | None]) -> Iterator[str]:
    """The beginnings of names that belong to a Service."""
    for name, value in variables.items():
        if name.endswith("_PORT") and _ADDRESS.fullmatch(value or ""):
            yield name.removesuffix("_PORT")
        # A pod may set NAME_PORT itself.
        service = name.removesuffix("_SERVICE_HOST")
        if service != name and f"{service}_SERVICE_PORT" in variables:
            yield service


def _is_link(name: str, value: str | None, services: set[str]) -> bool:
    if name.endswith("_PORT") and _ADDRESS.fullmatch(value or ""):
        return True
    return any(name.startswith(one) and _LINK_OF_SERVICE.fullmatch(name, len(one)) is not None for one in services)
