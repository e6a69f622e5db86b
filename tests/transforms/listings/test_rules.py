"""The rules of the notebooks, by example."""

import pytest

from transforms import readers
from transforms.listings import rules


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("3831", 3831),
        (" 42 ", 42),
        ("4.0", 4),
        ("1009876543210987655", 1009876543210987655),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_integer_reads_every_digit(raw: str, expected: int) -> None:
    assert readers.integer(raw) == expected


@pytest.mark.parametrize("raw", ["", "x", "1.5", "1e5", "1_000", "１２", "0x10", "--1"])
def test_integer_refuses_what_is_no_whole_number(raw: str) -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        readers.integer(raw)


@pytest.mark.parametrize(
    "raw", ["1216463657261099520.0", "9007199254740993.0", "9007199254740992.", "-9007199254740993.00"]
)
def test_integer_refuses_what_a_float_may_have_rounded(raw: str) -> None:
    with pytest.raises(ValueError, match="was a float, which may have lost its last digits"):
        readers.integer(raw)


def test_integer_reads_a_fraction_of_zeros_below_2_to_53() -> None:
    assert readers.integer("9007199254740991.0") == 2**53 - 1


@pytest.mark.parametrize(("raw", "expected"), [("40.68494", 40.68494), ("-73.9", -73.9), (" 2 ", 2.0), ("1e1", 10.0)])
def test_number(raw: str, expected: float) -> None:
    assert readers.number(raw) == expected


@pytest.mark.parametrize("raw", ["nan", "inf", "-Infinity", "1_0", "", "two"])
def test_number_refuses_what_is_not_finite(raw: str) -> None:
    with pytest.raises(ValueError, match=r"number|float"):
        readers.number(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("1 bath", 1.0),
        ("1.5 shared baths", 1.5),
        ("0 baths", 0.0),
        ("1 private bath", 1.0),
        ("Half-bath", 0.5),
        ("Shared half-bath", 0.5),
        ("Private half-bath", 0.5),
        ("private HALF-BATH", 0.5),
        ("2.0", 2.0),
        ("14 shared baths", 14.0),
    ],
)
def test_bathrooms(raw: str, expected: float) -> None:
    assert rules.bathrooms(raw) == expected


@pytest.mark.parametrize("raw", ["bath", "one bath", "-1 baths", "1 bathtub", "1.5.2", "2 half-baths"])
def test_bathrooms_refuses_other_texts(raw: str) -> None:
    with pytest.raises(ValueError, match="not a number of bathrooms"):
        rules.bathrooms(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("$75.00", 75.0),
        ("$1,234.00", 1234.0),
        ("$12,345.00", 12345.0),
        ("$1,234,567.89", 1234567.89),
        ("1.234,50 €", 1234.5),
        ("1.234.567", 1234567.0),
        ("€12,50", 12.5),
        ("HK$404.00", 404.0),
        ("R$ 100", 100.0),
        ("USD 120", 120.0),
        ("120 kr", 120.0),
        ("1'250.00 CHF", 1250.0),
        ("1 250,00 zł", 1250.0),
        ("12 usd", 12.0),
        ("R1 234,50", 1234.5),
        ("KSh 500", 500.0),
        ("500円", 500.0),
        ("5 грн", 5.0),
        ("C$99", 99.0),
        ("XOF 5000", 5000.0),
        ("1234", 1234.0),
        ("99.99", 99.99),
        ("123.456", 123.456),
        ("-$5.00", -5.0),
        ("$-5.00", -5.0),
    ],
)
def test_amount_understands_currencies_and_separators(raw: str, expected: float) -> None:
    assert readers.amount(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "free",
        "$",
        "ask me",
        "$1,23,4.00",
        "1.2.3",
        "12 or 13",
        "$10-20",
        "nan",
        "1e3",
        "١٢",
        "$" + "9" * 400,
        "15k",
        "$15K",
        "2 M",
        "2.85 kg",
        "PAL0708",
        "Dec 3 2009",
        "12 %",
        "6.5 l",
        "5k€",
        "1.5 M€",
        "5 bn$",
        "kg$5",
        "Top 5",
    ],
)
def test_amount_refuses_nonsense(raw: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        readers.amount(raw)
