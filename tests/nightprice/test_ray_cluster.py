"""Whether a cluster answers: one check for the pipeline and the service."""

import socket

import pytest

from nightprice.errors import NightpriceError
from nightprice.ray_cluster import check_answers, check_temporary_folder, connect
from tests.support.ports import free_port


def test_an_address_that_something_listens_at_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_answers(f"127.0.0.1:{listener.getsockname()[1]}")
        check_answers(f"ray://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("address", ["auto", "local", "ray://head"])
def test_addresses_without_host_and_port_are_left_to_ray(address: str) -> None:
    check_answers(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", r"the address of the dashboard.* Set it to HOST:6379"),
        ("127.0.0.1:port", r"is not an address: .* Write HOST:PORT"),
        ("127.0.0.1:PORT", r"No Ray cluster answers .* \(Connection refused\)\. Start one there"),
    ],
)
def test_any_other_is_one_sentence(address: str, message: str) -> None:
    address = address.replace("PORT", str(free_port()))
    with pytest.raises(NightpriceError, match=f"RAY_ADDRESS={address}") as caught:
        check_answers(address)

    assert caught.match(message)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_rays_sockets_is_said_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(name, "/" + "t" * 39)
    with pytest.raises(
        NightpriceError, match=rf"^Ray can't start in {name}=/t+: .* at most 39 characters, such as /tmp"
    ):
        connect()


def test_a_folder_of_that_length_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "t" * 100)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "t" * 38)
    check_temporary_folder()
