"""`nightprice init`: a table's header and first rows become a contract that works as it is."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv
from typer.testing import CliRunner, Result

from pipeline.cli.commands import app
from transforms.clean import CleanedTable, clean
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


def test_the_comment_above_a_field_says_what_could_not_be_read(folder: Path) -> None:
    written("init-empty", "--target", "price", "--key", "id")

    source = (folder / "init_empty.py").read_text("utf-8")

    assert '; 1 blank\n        Field("mileage"' in source
    assert '; 1 can\'t be read, such as "ask"\n        Field("price"' in source


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
    assert cleaned.accepted["mileage"].to_pylist()[:2] == ["120,000 km", None], "a unit needs a rule of its own"


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


def of_columns(name: str, columns: Mapping[str, Iterable[object]], *arguments: str) -> tuple[Contract, CleanedTable]:
    """The contract that the command writes for such a file, and the file cleaned by it."""
    table = pa.table({column: pa.array(map(str, values)) for column, values in columns.items()})
    csv.write_csv(table, "cars.csv")
    contract = written(name, *arguments)
    return contract, clean(table, contract, contract.label)


def test_columns_whose_names_would_be_one_or_none_are_fields_of_their_own() -> None:
    names = ["Price (EUR)", "price eur", "€", "model", "rejected", "error", "key", "price_eur_band"]
    columns = {name: range(number, number + 20) for number, name in enumerate(names)}

    contract, cleaned = of_columns("init-names", columns, "--target", "Price (EUR)", "--key", "model")

    assert (contract.target, contract.key) == ("price_eur", "model_2")
    assert contract.features == ("price_eur_2", "column", "rejected_2", "error", "key", "price_eur_band_2")
    assert cleaned.accepted["price_eur_2"].to_pylist() == list(range(1, 21))


def test_the_fields_beside_a_key_of_several_columns_have_other_names() -> None:
    columns = {"model": ["a", "b"] * 6, "size": range(12), "key": range(12), "part": range(12)}

    contract, _ = of_columns("init-key", columns, "--target", "model", "--key", "size", "--key", "part")

    # What identifies a record is no feature.
    assert (contract.key, contract.target, contract.features) == ("key", "model_2", ("key_2",))


def test_rows_that_can_not_be_read_are_told_in_the_module() -> None:
    Path("cars.csv").write_bytes(TABLE.encode() + "13,coupé,2010,,£1,no\n".encode("latin-1"))

    written("init-latin", "--target", "price", "--key", "id")

    assert "\n# 1 rows are not among what is said of columns: " in Path("init_latin.py").read_text("utf-8")


def test_a_column_that_no_contract_may_have_is_told() -> None:
    Path("cars.csv").write_text(TABLE.replace("mileage", "reasons"), "utf-8")

    result = call("cars", "--from", "cars.csv", "--target", "sold", "--key", "id")

    assert result.exit_code == 2
    assert 'no column can be called "reasons": the name has another use. Rename it.' in result.stderr


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        (range(2001, 2022), (2006.0, 2011.0, 2016.0)),
        ([f"1.0{number:02}" for number in range(1, 20)], (1.005, 1.01, 1.015)),
        (range(103, 1903), (550.0, 1000.0, 1500.0)),
        ([0] * 90 + [*range(1, 11)], (0.0,)),
        ([*range(10)] + [99] * 90, (9.0,)),
        ([-(2**70), *range(20), 2**70], (3.8, 9.5, 15.0)),
    ],
)
def test_bins_have_as_few_digits_as_keep_the_rows_in_their_bands(
    values: Sequence[object], bins: tuple[float, ...]
) -> None:
    columns = {"id": range(len(values)), "price": values}

    contract, cleaned = of_columns(f"init-bins-{len(values)}-{bins[0]}", columns, "--target", "price", "--key", "id")

    assert isinstance(contract.label, Bands)
    assert contract.label.bins == bins
    assert set(cleaned.accepted["price_band"].to_pylist()) == set(contract.label.labels)


@pytest.mark.parametrize("value", ["", "7"])
def test_a_target_of_one_value_is_refused(value: str) -> None:
    Path("cars.csv").write_text("id,price\n" + "".join(f"{row},{value}\n" for row in range(20)), "utf-8")

    result = call("cars", "--from", "cars.csv", "--target", "price", "--key", "id")

    assert result.exit_code == 2
    assert '"price" has fewer than two different values in the first 10,000 rows' in result.stderr


def test_the_example_has_the_first_value_that_can_be_read() -> None:
    columns = {"id": ["?", *range(1, 20)], "size": ["", "?", *range(18)], "price": range(20)}

    contract, cleaned = of_columns("init-example", columns, "--target", "price", "--key", "id")

    assert contract.example == {"id": 1, "size": 0}
    assert cleaned.rejected["reasons"].to_pylist() == [["id:unparseable"]]


@pytest.mark.parametrize("ids", [range(-3, 9), range(2**63 - 5, 2**63 + 7)], ids=["negative", "large"])
def test_ids_that_are_no_key_as_they_are_become_a_composite_key(ids: range) -> None:
    contract, cleaned = of_columns(
        f"init-ids-{ids[0] < 0}", {"id": ids, "sold": ["yes", "no"] * 6}, "--target", "sold", "--key", "id"
    )

    assert contract.key_field.joined
    assert len(set(cleaned.accepted["key"].to_pylist())) == len(ids)


@pytest.mark.parametrize(
    ("largest", "type", "high"),
    [
        (2**63 - 1, pa.int64(), "9_223_372_036_854_775_807"),
        (2**63, pa.float64(), "1e+20"),
        (-(2**63), pa.float64(), "1e+20"),
        ("1e300", pa.float64(), "1e+301"),
        ("-1.7e308", pa.float64(), "1.7976931348623157e+308"),
    ],
)
def test_a_number_of_any_size_is_within_the_range_of_its_field(largest: object, type: pa.DataType, high: str) -> None:
    name = f"init-size-{largest}".replace("-", "_").replace(".", "_")

    contract, cleaned = of_columns(
        name, {"id": range(12), "size": [*range(11), largest], "price": range(12)}, "--target", "price", "--key", "id"
    )

    assert contract.by_name["size"].type == type
    assert f"high={high})" in Path(f"{name}.py").read_text()
    assert (len(cleaned.accepted), float(cleaned.accepted["size"].to_pylist()[-1])) == (12, float(str(largest)))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.csv", '"gone.csv": no data file found (nothing is there)'),
        ("notes.txt", 'notes.txt" is not a data file of a known kind'),
        ("folder", '"folder" is not a CSV file on this machine'),
        ("*.csv", '"*.csv" is not a CSV file on this machine'),
        ("rows.jsonl", '"rows.jsonl" is not a CSV file on this machine'),
    ],
)
def test_what_is_not_a_csv_file_is_wrong_usage(file: str, message: str, folder: Path) -> None:
    (folder / "folder").mkdir()
    for name in ("folder/a.csv", "notes.txt", "rows.jsonl"):
        (folder / name).write_text(TABLE, "utf-8")

    result = call("cars", "--from", file, "--target", "price", "--key", "id")

    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


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

    said = call("cars", "--from", "cars.csv", "--target", "price", "--key", "id").stderr

    assert "cars.csv has a header at most, and no rows. Name a file with rows." in said


def test_a_key_that_repeats_is_told_in_the_module() -> None:
    written("init-repeats", "--target", "price", "--key", "Body type")

    assert "# 8 of 12 rows have a key that occurred: repeat --key, if" in Path("init_repeats.py").read_text("utf-8")


def test_a_name_that_no_model_can_have_is_refused() -> None:
    result = call("Bad Name!", "--from", "cars.csv", "--target", "price", "--key", "id")

    assert result.exit_code == 2
    assert '"Bad Name!" can\'t be the name of a model' in result.stderr
