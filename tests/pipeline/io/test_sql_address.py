import doctest
from pathlib import Path

import pytest

from nightprice.address import parse_address
from pipeline.io import StoreError
from pipeline.io.sql import errors as sql_errors
from pipeline.io.sql.address import SqlAddress, sql_address


def parse(uri: str) -> SqlAddress:
    return sql_address(parse_address(uri))


def test_a_table_and_the_drivers_own_parameters() -> None:
    address = parse("postgresql://ann:se%2Fcret@db:5433/prices?sslmode=require&table=city.listings&key=id")
    assert (address.table, address.query, address.key) == ("city.listings", None, "id")
    assert address.connection == "postgresql://ann:se%2Fcret@db:5433/prices?sslmode=require"
    assert address.display == "postgresql://ann@db:5433/prices?sslmode=require&table=city.listings&key=id"
    assert address.secret == "se/cret"
    assert "cret" not in repr(address)
    assert address.of_table("other").text == "postgresql://ann:se%2Fcret@db:5433/prices?sslmode=require&table=other"
    assert address.of_table("other").display == "postgresql://ann@db:5433/prices?sslmode=require&table=other"
    assert parse("sqlite:///a.db?table=t&key=id").of_table("other").text == "sqlite:///a.db?table=other"


def test_a_query_is_url_encoded() -> None:
    assert (
        parse("sqlite:///a.db?query=SELECT+*+FROM+t+WHERE+a+%3D+%27x%26y%27;").query
        == "SELECT * FROM t WHERE a = 'x&y'"
    )


def test_sqlite_paths_with_three_and_four_slashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("sqlite:///a%20b.db?table=t").connection == str(tmp_path / "a b.db")
    assert parse("sqlite:////data/a.db?table=t").connection == "/data/a.db"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://ann:secret@db/prices", "must name one table or one query"),
        ("postgresql://ann:secret@db/prices?table=", "must name one table or one query"),
        ("postgresql://ann:secret@db/prices?table=a&query=b", "must name one table or one query"),
        ("postgresql://ann:secret@db/prices?query=SELECT 1 # one", 'cut off at a "#"'),
        ("postgresql://ann@db/prices?table=a&password=secret", "the password must not be a parameter"),
        ("sqlite://a.db?table=t", "names no file"),
        ("sqlite:///?table=t", "names no file"),
    ],
)
def test_wrong_addresses(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        parse(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:///a.db?query=SELECT+1", "sqlite:///a.db?table=t&key=id"])
def test_a_sink_is_a_table(uri: str) -> None:
    with pytest.raises(StoreError, match="a sink is one table"):
        parse(uri).writable_table()


def test_examples() -> None:
    assert doctest.testmod(sql_errors).attempted == 1
    assert doctest.testmod(sql_errors).failed == 0
