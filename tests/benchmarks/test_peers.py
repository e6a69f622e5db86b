"""What `process` is measured against does the same work: the Polars pipeline by result, the notebook by its known
losses.
"""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.peers import notebook, polars
from transforms.clean import CleanedTable, clean
from transforms.listings import CONTRACT, PRICE_BANDS
from transforms.listings.generate import generate

ROWS = 6_000


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "raw"
    generate(ROWS, folder, shards=2, bad_rows=0.2)
    return folder


@pytest.fixture(scope="module")
def ours(raw: Path) -> CleanedTable:
    return clean(pq.read_table(raw, columns=list(CONTRACT.raw_columns)), CONTRACT, CONTRACT.label)


def test_polars_accepts_the_same_rows_with_the_same_values(raw: Path, ours: CleanedTable, tmp_path: Path) -> None:
    counts = polars(raw, tmp_path, PRICE_BANDS)
    theirs = pq.read_table(tmp_path / "accepted.parquet").cast(ours.accepted.schema)
    assert counts == (len(ours.accepted), len(ours.rejected))
    assert _sorted(theirs).equals(_sorted(ours.accepted))


def test_polars_rejects_for_the_same_reasons(raw: Path, ours: CleanedTable, tmp_path: Path) -> None:
    polars(raw, tmp_path, PRICE_BANDS)
    theirs = pq.read_table(tmp_path / "rejected.parquet")["reasons"].to_pylist()
    assert Counter(map(tuple, theirs)) == Counter(map(tuple, ours.rejected["reasons"].to_pylist()))


@pytest.mark.parametrize(
    "price",
    [
        "$1,234.00",
        "1.234,50 €",
        "HK$404",
        "75",
        "$10.00",
        "$9.99",
        "$-75.00",
        "1'234.50",
        "1,23",
        "$1,23,456.00",
        "1.234.567",
    ],
)
def test_polars_reads_prices_as_we_do(price: str, tmp_path: Path) -> None:
    generate(1, tmp_path / "raw", shards=1, bad_rows=0)
    table = pq.read_table(tmp_path / "raw", columns=list(CONTRACT.raw_columns))
    (tmp_path / "changed").mkdir()
    table = table.set_column(table.schema.get_field_index("price"), "price", pa.array([price]))
    pq.write_table(table, tmp_path / "changed" / "listings.parquet")
    expected = clean(table, CONTRACT, CONTRACT.label)
    polars(tmp_path / "changed", tmp_path, PRICE_BANDS)
    assert pq.read_table(tmp_path / "accepted.parquet")["price"].to_pylist() == expected.accepted["price"].to_pylist()


def test_the_notebook_loses_what_it_is_known_to_lose(tmp_path: Path) -> None:
    generate(4_000, tmp_path / "raw", shards=1, bad_rows=0)
    kept = notebook(tmp_path / "raw", tmp_path)
    # Rows without bedrooms, beds or a bathroom's number, and prices of 1,000 and more.
    assert 0.75 < kept / 4_000 < 0.92
    assert (tmp_path / "listings.csv").exists()


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in ("id", "price")]).combine_chunks()
