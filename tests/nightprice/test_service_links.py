"""Pods that run beside Services whose names look like our settings."""

import os

import pytest

from nightprice.errors import UsageError
from nightprice.settings import DEFAULT
from pipeline.settings import load_settings
from serve_app.options import load_options


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of ours."""
    for name in [name for name in os.environ if name.startswith("NIGHTPRICE_")]:
        monkeypatch.delenv(name)


def links(service: str, protocol: str = "TCP") -> dict[str, str]:
    """What Kubernetes sets for a Service with one named port."""
    name, scheme = service.upper().replace("-", "_"), protocol.lower()
    port = f"{name}_PORT_8000_{protocol}"
    return {
        f"{name}_SERVICE_HOST": "10.0.0.9",
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_SERVICE_PORT_SERVE": "8000",
        f"{name}_PORT": f"{scheme}://10.0.0.9:8000",
        port: f"{scheme}://10.0.0.9:8000",
        f"{port}_PROTO": scheme,
        f"{port}_PORT": "8000",
        f"{port}_ADDR": "10.0.0.9",
    }


@pytest.mark.parametrize(
    "service",
    ["nightprice", "nightprice-serve", "nightprice-serve-svc", "nightprice-serve-service", "nightprice-head-svc"],
)
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_links_are_not_settings(service: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in links(service, protocol).items():
        monkeypatch.setenv(name, value)

    assert (load_options().port, load_options().host) == (8000, "127.0.0.1")
    assert set(load_settings().origins().values()) == set(load_options().origins().values()) == {DEFAULT}


def test_an_address_alone_shows_that_it_is_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SERVE_PORT", "tcp://[fd00::9]:9000")

    assert load_options().port == 8000


def test_a_pod_may_set_what_a_link_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**links("nightprice-serve"), "NIGHTPRICE_SERVE_PORT": "9000"}.items():
        monkeypatch.setenv(name, value)

    assert load_options().port == 9000
    assert load_options().origins()["port"] == "NIGHTPRICE_SERVE_PORT"


@pytest.mark.parametrize("name", ["NIGHTPRICE_SERVE_SERVICE_PORT", "NIGHTPRICE_SERVE_PORT_8000_TCP"])
def test_a_typing_error_is_still_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "9000")

    with pytest.raises(UsageError, match=name):
        load_options()
