"""Addresses: what is shown of them, and what is refused."""

import pytest

from nightprice.address import parse_address
from nightprice.errors import UsageError


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("postgresql://ann:s3cr3t@db:5433/prices?table=x", "postgresql://ann@db:5433/prices?table=x"),
        ("postgresql://db/prices?password=s3cr3t&table=x", "postgresql://db/prices"),
        ("s3://KEY:s3cr3t@bucket/x?region=eu", "s3://KEY@bucket/x?region=eu"),
        ("https://ann:s3cr3t@host:8/x.csv?token=s3cr3t#s3cr3t", "https://host:8/x.csv"),
        ("sqlite:///a.db?table=x", "sqlite:///a.db?table=x"),
        ("data/a:b@c?.csv", "data/a:b@c?.csv"),
    ],
)
def test_an_address_shows_no_secret(text: str, display: str) -> None:
    address = parse_address(text)

    assert (address.text, address.display, str(address), repr(address)) == (
        text,
        display,
        display,
        f"Address({display!r})",
    )


@pytest.mark.parametrize("text", ["http://ann:s3cr3t@[::1/x.csv", "http://[::1/x.csv?token=s3cr3t"])
def test_neither_does_the_error_about_a_text_that_is_not_an_address(text: str) -> None:
    with pytest.raises(
        UsageError, match=r'^"http://\[::1/x\.csv" is not an address: Invalid IPv6 URL\. Write it'
    ) as caught:
        parse_address(text)

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("text", ["file:///data/my%20rows", "file://localhost/data/my%20rows", "FILE:///data/my rows"])
def test_a_file_url_is_decoded(text: str) -> None:
    assert str(parse_address(text).local) == "/data/my rows"
    assert str(parse_address(text).child("a").local) == "/data/my rows/a"


def test_a_path_stands_as_it_is_written() -> None:
    assert str(parse_address("/data/my%20rows").local) == "/data/my%20rows"


@pytest.mark.parametrize("text", ["file://server/data", "file://data"])
def test_a_file_of_another_machine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a file of this machine"):
        parse_address(text)
