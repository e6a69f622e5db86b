"""Real listings, where `NIGHTPRICE_TEST_DATA` names the folder that holds them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import open_dataset
from pipeline.process import process
from pipeline.settings import Settings
from tests.support.paths import TEST_DATA, needs_test_data
from transforms.listings import CONTRACT
from transforms.listings.amenities import has_amenity
from transforms.readers import list_of_texts

CITIES = {
    "hong-kong_2021-07-13": (6_538, {"price:below_minimum": 1}),
    "columbus_2023-09-22": (2_497, {"price:below_minimum": 1}),
    "rochester_2023-10-23": (938, {}),
    "newark_2025-09-30": (1_872, {"price:missing": 152}),
}
NEW_YORK = TEST_DATA / "nyc_2021-12-04"
# What the first notebook looked for in the text of all amenities, case and all.
NOTEBOOK = {
    "tv": "TV",
    "internet": "Internet",
    "air_conditioning": "Air conditioning",
    "kitchen": "Kitchen",
    "heating": "Heating",
    "wifi": "Wifi",
    "elevator": "Elevator",
    "breakfast": "Breakfast",
}

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    needs_test_data,
]


@pytest.mark.parametrize("city", CITIES)
def test_a_city_reconciles(city: str, tmp_path: Path) -> None:
    rows, reasons = CITIES[city]

    manifest = process(str(TEST_DATA / f"{city}.listings.csv.gz"), str(tmp_path / "dataset"), Settings())

    assert manifest["rows"] == {
        "read": rows,
        "accepted": rows - sum(reasons.values()),
        "rejected": sum(reasons.values()),
    }
    assert manifest["reasons"] == reasons
    assert manifest["warnings"] == {}
    folder = tmp_path / "dataset" / "versions" / manifest["version"]
    assert pq.read_table(folder / "accepted").num_rows == manifest["rows"]["accepted"]


def test_new_york_is_what_the_notebook_made_of_it_and_more(tmp_path: Path) -> None:
    manifest = process(str(NEW_YORK / "listings_reconstructed.csv.gz"), str(tmp_path / "dataset"), Settings())

    assert manifest["rows"] == {"read": 31_841, "accepted": 31_841, "rejected": 0}
    columns = ["id", "price", "bathrooms", CONTRACT.label_name, *NOTEBOOK]
    mine = pa.Table.from_pylist(open_dataset(str(tmp_path / "dataset"), CONTRACT).rows(columns).take_all())
    theirs = pyarrow.csv.read_csv(NEW_YORK / "processed_by_notebook.csv.gz")
    mine, theirs = mine.sort_by("id"), theirs.sort_by("id")
    assert mine["price"].to_pylist() == theirs["price"].to_pylist()
    assert mine["bathrooms"].to_pylist() == theirs["bathrooms"].to_pylist()
    labels = ["Low", "Mid", "High", "Lux"]
    for price, category, code in zip(
        mine["price"].to_pylist(), mine[CONTRACT.label_name].to_pylist(), theirs["category"].to_pylist(), strict=True
    ):
        # The notebook lost the class of prices of exactly 10: they are Low.
        assert category == ("Low" if price == 10 else labels[int(code)])
    for name, column in NOTEBOOK.items():
        flags = zip(mine[name].to_pylist(), theirs[column.replace(" ", "_")].to_pylist(), strict=True)
        # Wifi is internet too; all else is exactly what the notebook saw.
        assert all(mine_ == bool(their) or (name == "internet" and mine_) for mine_, their in flags), name


@pytest.mark.parametrize("city", CITIES)
def test_no_amenity_of_the_notebook_is_missed(city: str) -> None:
    """Where the notebook's substring is not inside another word (a KitchenAid is no kitchen), the flag is set."""
    options = pyarrow.csv.ConvertOptions(include_columns=["amenities"])
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    texts = pyarrow.csv.read_csv(TEST_DATA / f"{city}.listings.csv.gz", parse_options=parse, convert_options=options)[
        "amenities"
    ].to_pylist()

    for name, word in NOTEBOOK.items():
        missed = [text for text in texts if word in text and not has_amenity(list_of_texts(text), name)]
        assert [json.loads(text) for text in missed] == []


def test_prices_of_a_thousand_and_more_keep_their_value(tmp_path: Path) -> None:
    process(str(TEST_DATA / "hong-kong_2021-07-13.listings.csv.gz"), str(tmp_path / "dataset"), Settings())

    prices = [row["price"] for row in open_dataset(str(tmp_path / "dataset"), CONTRACT).rows(["price"]).take_all()]

    assert max(prices) == 84_042
    assert sum(price >= 1_000 for price in prices) == 938
