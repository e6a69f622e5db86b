"""`nightprice init`: a table's header and first rows become a contract that works as it is."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv
from typer.testing import CliRunner, Result

from pipeline.cli.commands import app
from transforms.clean import clean
from transforms.contract import Bands, Classes, Contract, Field, load_contract

TABLE = """id,Body type,Year,mileage,price,sold
1,estate,2015,"120,000 km",£7 900,yes
2,suv,2019,,"£21,500",no
3,estate,2001,"90,000 km",ask,no
4,hatchback,2008,"70,000 km",£900,yes
5,suv,2010,"150,000 km","£4,500",yes
6,saloon,1999,"99,000 km",£450,no
7,saloon,2021,"9,000 km","£31,000",no
8,suv,2013,"110,000 km","£6,200",yes
9,estate,2016,"80,500 km","£10,250",yes
10,saloon,2005,"180,000 km","£1,100",no
11,estate,2012,"101,000 km","£5,600",yes
12,suv,2018,"40,000 km","£17,900",yes
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cars.csv").write_text(TABLE, "utf-8")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["init", *arguments])


def written(name: str, *arguments: str) -> Contract:
    """The contract that the command writes; `name` is used once, for a module is imported once."""
    result = call(name, "--from", "cars.csv", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return load_contract(json.loads(result.stdout)["contract"])


def raw() -> pa.Table:
    header = TABLE.partition("\n")[0].split(",")
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
    return csv.read_csv(pa.BufferReader(TABLE.encode()), convert_options=as_text)


def test_a_number_becomes_bands_of_about_as_many_rows() -> None:
    contract = written("init-cars", "--target", "price", "--key", "id")

    cleaned = clean(raw(), contract, contract.label)

    assert contract.name == "init-cars"
    assert contract.features == ("body_type", "year", "mileage", "sold")
    assert isinstance(contract.label, Bands)
    assert sorted(cleaned.accepted["price_band"].to_pylist().count(label) for label in contract.label.labels) == [
        2,
        3,
        3,
        3,
    ]
    assert cleaned.rejected["reasons"].to_pylist() == [["price:unparseable"]]
    assert cleaned.accepted["mileage"].to_pylist()[:2] == [120_000, None]


def test_few_texts_become_classes_and_several_columns_a_key() -> None:
    contract = written("init-sold", "--target", "sold", "--key", "Year", "--key", "Body type")

    cleaned = clean(raw(), contract, contract.label)

    assert contract.label == Classes(("no", "yes"))
    assert contract.key_field.joined
    assert "id" in contract.features
    assert len(set(cleaned.accepted["key"].to_pylist())) == 12


def test_a_class_may_look_like_a_number() -> None:
    Path("cars.csv").write_text(TABLE.replace("yes", "1").replace("no", "0"), "utf-8")

    assert written("init-zero", "--target", "sold", "--key", "id").label == Classes(("0", "1"))


def test_a_field_has_what_its_column_holds() -> None:
    contract = written("init-fields", "--target", "price", "--key", "id")

    def facts(item: Field) -> tuple[object, ...]:
        return item.columns, item.type, item.low, item.high, item.required

    assert facts(contract.by_name["year"]) == (("Year",), pa.int64(), 0, 10_000, False)
    assert facts(contract.by_name["body_type"]) == (("Body type",), pa.string(), None, None, False)
    assert facts(contract.by_name["id"]) == (("id",), pa.int64(), 0, 2**63 - 1, True)
    assert contract.example["year"] == 2015


@pytest.mark.parametrize("encode", [gzip.compress, lambda text: text.decode().encode("utf-16")])
def test_a_file_is_read_as_process_reads_it(encode: Callable[[bytes], bytes]) -> None:
    table = TABLE.replace("no\n", "NA\n", 1).replace(",", ";").replace('"120;000 km"', '"120,000 km"')
    Path("cars.csv").write_bytes(encode(table.encode()))

    contract = written(f"init-{encode.__name__.strip('<>')}", "--target", "sold", "--key", "id")

    assert contract.label == Classes(("no", "yes"))


@pytest.mark.parametrize("name", ["json", "class", "2cars"])
def test_a_name_that_is_none_of_a_module_is_refused(name: str) -> None:
    result = call(name, "--from", "cars.csv", "--target", "sold", "--key", "id")

    assert result.exit_code == 2
    assert "can't be the name of a module here" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--target sold --key sold", '"sold" is both key and target'),
        (
            "--target prize --key id",
            'cars.csv has no column "prize". Did you mean "price"? Its columns: id, Body type,',
        ),
        ("--target price --key ID", 'cars.csv has no column "ID". Did you mean "id"?'),
        ("--target mileage_text --key id", "no column"),
    ],
)
def test_a_column_that_is_missing_is_told(arguments: str, message: str, folder: Path) -> None:
    result = call("cars", "--from", "cars.csv", *arguments.split())

    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "cars.py").exists()


def test_a_target_that_is_neither_few_texts_nor_a_number_is_refused() -> None:
    Path("cars.csv").write_text("id,note\n" + "".join(f"{row},note {row} of many\n" for row in range(20)), "utf-8")

    result = call("cars", "--from", "cars.csv", "--target", "note", "--key", "id")

    assert result.exit_code == 2
    assert '"note" has 20 different texts and is not a number' in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,town,town,price\n1,a,b,2\n", 'column "town" occurs 2 times'),
        (b"id,town,price\n1,K\xf6ln,2\n", "No row of cars.csv can be read"),
        (b"id,town,price\n1,a,1,000\n", "No row of cars.csv can be read"),
    ],
)
def test_a_file_without_a_row_to_learn_from_is_told(content: bytes, message: str) -> None:
    Path("cars.csv").write_bytes(content)

    result = call("cars", "--from", "cars.csv", "--target", "price", "--key", "id")

    assert result.exit_code == 2
    assert message in result.stderr


def test_a_module_that_exists_is_left_alone(folder: Path) -> None:
    (folder / "cars.py").write_text("mine\n")

    result = call("cars", "--from", "cars.csv", "--target", "price", "--key", "id")

    assert (result.exit_code, (folder / "cars.py").read_text()) == (2, "mine\n")
    assert "cars.py exists already. Remove it, or choose another name than cars." in result.stderr


def test_a_table_without_rows_is_told() -> None:
    Path("cars.csv").write_text("id,price\n", "utf-8")

    assert (
        "none with a row below the header"
        in call("cars", "--from", "cars.csv", "--target", "price", "--key", "id").stderr
    )
