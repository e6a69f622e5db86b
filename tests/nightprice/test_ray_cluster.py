"""Whether a cluster answers: one check for the pipeline and the service."""

import socket

import pytest

from nightprice.errors import NightpriceError
from nightprice.ray_cluster import check_answers
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
        (f"127.0.0.1:{free_port()}", r"No Ray cluster answers .* \(Connection refused\)\. Start one there"),
    ],
)
def test_any_other_is_one_sentence(address: str, message: str) -> None:
    with pytest.raises(NightpriceError, match=f"RAY_ADDRESS={address}") as caught:
        check_answers(address)

    assert caught.match(message)
