"""Raw listings to a dataset: counts that reconcile, all or nothing, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from nightprice.errors import ContractError, NightpriceError
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.datasets import open_dataset
from pipeline.errors import GateRefused
from pipeline.io import Address, Columns, Source, Store, StoreError, parse_address, read, register
from pipeline.io.files import read as read_module
from pipeline.io.files import write as write_module
from pipeline.process import process
from pipeline.progress import Progress, watched
from pipeline.settings import Settings
from pipeline.versions import new_version
from tests.support.paths import ROOT
from tests.support.raw_listings import listing, table_of, write_csv, write_shards
from tests.support.waiting import until
from transforms.listings import CONTRACT

pytestmark = pytest.mark.usefixtures("ray_session")


def ids(dataset: Path) -> list[int]:
    return sorted(row["id"] - 2**60 for row in open_dataset(str(dataset), CONTRACT).rows(["id"]).take_all())


def test_counts_reconcile_and_rejected_rows_keep_their_reasons(tmp_path: Path) -> None:
    rows = [
        listing(1),
        listing(2, price="$1,234.00"),
        listing(3, price="ask"),
        listing(4, bathrooms_text="some"),
        listing(1),
    ]
    source = write_csv(tmp_path / "raw.csv.gz", rows)
    (tmp_path / "broken.csv").write_text(write_csv(tmp_path / "b.csv", [listing(5)]).read_text() + "6,oops\n")
    (tmp_path / "b.csv").unlink()

    manifest = process(str(tmp_path / "*.csv*"), str(tmp_path / "dataset"), Settings(max_rejected=0.5))

    assert manifest["rows"] == {"read": 7, "accepted": 5, "rejected": 2}
    assert manifest["reasons"] == {"price:unparseable": 1, "row:invalid": 1}
    assert manifest["warnings"] == {"bathrooms:unparseable": 1, "id:repeated": 1}
    assert {Path(item["path"]).name for item in manifest["sources"]} == {"raw.csv.gz", "broken.csv"}
    assert manifest == json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert ids(tmp_path / "dataset") == [1, 1, 2, 4, 5]
    rejected = pq.read_table(tmp_path / "dataset" / "versions" / manifest["version"] / "rejected").to_pylist()
    assert {(row["reasons"][0], row["price"], row["invalid_row"], row["source_file"]) for row in rejected} == {
        ("price:unparseable", "ask", None, str(source)),
        ("row:invalid", None, "6,oops", str(tmp_path / "broken.csv")),
    }


def test_the_progress_tells_rows_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "SMALLEST_TASK_BYTES", 1)
    monkeypatch.setattr(read_module, "task_bytes", lambda total: 1)
    (tmp_path / "raw").mkdir()
    for part in range(3):
        write_csv(tmp_path / "raw" / f"{part}.csv", [listing(part * 10 + row) for row in range(5)])
    told: list[Progress] = []

    with watched(told.append):
        process(str(tmp_path / "raw"), str(tmp_path / "dataset"), Settings())

    cleaning = [progress for progress in told if progress.stage == "cleaning"]
    assert cleaning[0].totals == {"tasks": 3}
    assert cleaning[-1].counts == {"rows": 15, "tasks": 3}
    assert len(cleaning) > 2, "not all at once"


def test_prices_of_a_thousand_and_more_keep_their_value(tmp_path: Path) -> None:
    write_csv(tmp_path / "raw.csv", [listing(1, price="$1,234.00"), listing(2, price="$12,345.00")])

    manifest = process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())

    assert manifest["notes"][0].startswith('100.0% of the rows have the one label "Lux"')
    prices = open_dataset(str(tmp_path / "dataset"), CONTRACT).rows(["price", "price_category"]).take_all()
    assert sorted(prices, key=lambda row: row["price"]) == [
        {"price": 1234.0, "price_category": "Lux"},
        {"price": 12345.0, "price_category": "Lux"},
    ]


def test_more_rejected_than_allowed_is_refused_and_the_live_version_stays(tmp_path: Path) -> None:
    sink = tmp_path / "dataset"
    write_csv(tmp_path / "good.csv", [listing(1)])
    write_csv(tmp_path / "bad.csv", [listing(1), listing(2, price="x"), listing(3, latitude="")])
    live = process(str(tmp_path / "good.csv"), str(sink), Settings())

    with pytest.raises(
        GateRefused,
        match=r"2 of 3 rows \(66\.7%\) were rejected, more than the 20\.0% allowed: (price|latitude):[a-z]+ \(1\)",
    ) as caught:
        process(str(tmp_path / "bad.csv"), str(sink), Settings())

    assert open_dataset(str(sink), CONTRACT).version == live["version"]
    kept = str(caught.value).partition("kept at ")[2].partition(";")[0]
    assert pq.read_table(kept).num_rows == 2
    assert not (Path(kept).parent / "accepted").exists()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], StoreError, "holds no rows: nothing was published"),
        ([listing(1, price="call me")], GateRefused, r"all 1 were rejected: price:unparseable \(1\)"),
    ],
)
def test_a_source_without_use_leaves_nothing_live(
    tmp_path: Path, rows: list[dict[str, Any]], error: type[Exception], message: str
) -> None:
    write_csv(tmp_path / "raw.csv", rows)

    with pytest.raises(error, match=message):
        process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())

    with pytest.raises(StoreError, match="is not a processed dataset"):
        open_dataset(str(tmp_path / "dataset"), CONTRACT)


def test_a_run_that_accepts_nothing_publishes_nothing_whatever_may_be_rejected(tmp_path: Path) -> None:
    sink = tmp_path / "dataset"
    write_csv(tmp_path / "good.csv", [listing(1)])
    write_csv(tmp_path / "bad.csv", [listing(2, price="x"), listing(3, price="x")])
    live = process(str(tmp_path / "good.csv"), str(sink), Settings())

    with pytest.raises(GateRefused, match=r"No row was accepted: all 2 were rejected: price:unparseable \(2\)"):
        process(str(tmp_path / "bad.csv"), str(sink), Settings(max_rejected=1))

    assert open_dataset(str(sink), CONTRACT).version == live["version"]


def test_rows_without_a_target_are_no_sign_of_a_broken_source(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", [listing(1), *(listing(number, price="") for number in range(2, 10))])

    manifest = process(str(source), str(tmp_path / "dataset"), Settings())

    assert manifest["rows"] == {"read": 9, "accepted": 1, "rejected": 8}
    assert manifest["notes"][0] == "8 of 9 rows have no price: no model is trained on them."
    write_csv(source, [listing(1), listing(2, price=""), listing(3, price="", latitude="x")])
    with pytest.raises(GateRefused, match=r"1 of 2 rows \(50\.0%\), beside 1 without price, were rejected"):
        process(str(source), str(tmp_path / "dataset"), Settings())


def test_a_refusal_shows_a_row_for_each_frequent_reason(tmp_path: Path) -> None:
    rows = [
        *[listing(number, price="call us") for number in range(4)],
        *[listing(number, id="1.2E+18") for number in range(3)],
        *[listing(number, accommodates="0") for number in range(2)],
        listing(1, latitude=""),
    ]
    source = write_csv(tmp_path / "raw.csv", rows)

    with pytest.raises(GateRefused) as refused:
        process(str(source), str(tmp_path / "dataset"), Settings(max_rejected=0.5))

    message = str(refused.value)
    assert f"{source}, id {2**60}: 'call us' is not an amount; {source}: '1.2E+18' is not a whole number" in message
    assert "accommodates = '0'" in message
    assert "latitude" not in message


def test_rows_that_are_not_utf8_are_shown_with_what_to_do(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", [listing(1, neighbourhood_cleansed="Kr\u00e4he")])
    source.write_bytes(source.read_text().encode("latin-1"))

    with pytest.raises(GateRefused, match=r"row:not_utf8 \(1\).*Kr\\xe4he.*save the file as UTF-8"):
        process(str(source), str(tmp_path / "dataset"), Settings())


def test_folders_named_like_columns_are_columns(tmp_path: Path) -> None:
    for borough, number in (("Queens", 1), ("Staten%20Island", 2), ("__HIVE_DEFAULT_PARTITION__", 3)):
        folder = tmp_path / "raw" / f"neighbourhood_group_cleansed={borough}" / "year=2024"
        folder.mkdir(parents=True)
        columns = table_of([listing(number)]).drop_columns(["neighbourhood_group_cleansed"])
        pq.write_table(columns, folder / "rows.parquet")

    manifest = process(str(tmp_path / "raw"), str(tmp_path / "dataset"), Settings())

    rows = open_dataset(str(tmp_path / "dataset"), CONTRACT).rows(["id", "neighbourhood"]).take_all()
    places = [row["neighbourhood"] for row in sorted(rows, key=lambda row: row["id"])]
    assert places == ["Queens", "Staten Island", "Bedford-Stuyvesant"]
    assert manifest["warnings"] == {"neighbourhood:other_column": 1}


def test_a_column_that_all_files_lack_is_no_warning(tmp_path: Path) -> None:
    rows = [listing(number, neighbourhood_group_cleansed="") for number in range(3)]

    manifest = process(str(write_csv(tmp_path / "raw.csv", rows)), str(tmp_path / "dataset"), Settings())

    assert manifest["warnings"] == {}


def test_files_that_are_left_out_are_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_csv(tmp_path / "raw" / "a.csv", [listing(1)])
    (tmp_path / "raw" / "notes.txt").touch()

    manifest = process(str(tmp_path / "raw"), str(tmp_path / "dataset"), Settings())

    assert (manifest["left_out"], manifest["left_out_count"]) == ([str(tmp_path / "raw" / "notes.txt")], 1)


def test_a_missing_column_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("id,prise\n1,2\n")

    with pytest.raises(
        ContractError,
        match=r'raw\.csv: columns "neighbourhood_group_cleansed" or .*, "price" are missing\. '
        r'Did you mean "prise"\? Available columns: id, prise',
    ):
        process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())

    assert not list((tmp_path / "dataset" / "versions").iterdir())


def test_a_version_that_another_run_may_be_writing_is_not_pruned(tmp_path: Path) -> None:
    """Promise: however many short runs end meanwhile, a long run on the same sink keeps its rows."""
    write_csv(tmp_path / "raw.csv", [listing(1)])
    going_on = tmp_path / "dataset" / "versions" / f"{new_version()[:-6]}000000"
    going_on.mkdir(parents=True)

    versions = {process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())["version"] for _ in range(4)}

    assert {item.name for item in going_on.parent.iterdir()} == {going_on.name, *versions}


def test_old_versions_are_pruned_but_for_the_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "raw.csv", [listing(1)])
    names = iter(f"2026010{day}T000000Z-aaaaaa" for day in range(1, 6))
    monkeypatch.setattr(write_module, "new_version", lambda: next(names))

    for _ in range(5):
        process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())

    assert sorted(item.name[7] for item in (tmp_path / "dataset" / "versions").iterdir()) == ["3", "4", "5"]
    assert ids(tmp_path / "dataset") == [1]


class Mapped(Store):
    """The files of an address after "://", through a function."""

    def __init__(self, function: Callable[[pa.Table], Any]) -> None:
        self._function = function

    def read(self, address: Address, columns: Columns) -> Source:
        files = read(parse_address(address.text.partition("://")[2]), columns)
        return Source(map_tables(files.rows, self._function), files.description)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a task of its own."""
    monkeypatch.setattr(read_module, "SMALLEST_TASK_BYTES", 1)


@pytest.mark.usefixtures("small_tasks")
def test_a_worker_killed_mid_run_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    raw, marker = write_shards(tmp_path / "raw", shards=6, rows=500), str(tmp_path / "killed")

    def die_once(block: pa.Table) -> Iterator[pa.Table]:
        yield block.slice(0, 100)
        if not os.path.exists(marker) and block["id"][0].as_py() == str(2**60 + 1_000):
            with open(marker, "x"):
                os.kill(os.getpid(), signal.SIGKILL)
        yield block.slice(100)

    register("deadly", Mapped(die_once))
    manifest = process(f"deadly://{raw}", str(tmp_path / "dataset"), Settings())

    assert os.path.exists(marker)
    assert manifest["rows"] == {"read": 3_000, "accepted": 3_000, "rejected": 0}
    assert ids(tmp_path / "dataset") == list(range(3_000))


@pytest.mark.usefixtures("small_tasks")
def test_a_block_that_kills_every_worker_is_an_error_and_not_tried_for_ever(tmp_path: Path) -> None:
    """Promise: a task whose worker died is tried three times more."""
    raw, tries = write_shards(tmp_path / "raw", shards=1, rows=10), tmp_path / "tries"

    def die(block: pa.Table) -> pa.Table:
        with tries.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
        return block

    register("poisonous", Mapped(die))
    with pytest.raises(
        NightpriceError, match=r"^The workers of a task died, every time that it was tried\. Nothing was published"
    ):
        process(f"poisonous://{raw}", str(tmp_path / "dataset"), Settings())

    assert tries.read_text() == "xxxx"
    assert not list((tmp_path / "dataset" / "versions").iterdir())


DRIVER = """
import sys, time
import pyarrow as pa
from pipeline.cluster import session
session.start()
from pipeline.io import Source, Store, map_tables, parse_address, read, register
from pipeline.io.files import read as read_module
from pipeline.process import process
from pipeline.settings import Settings
read_module.SMALLEST_TASK_BYTES = 1

def hang(block):
    while block["id"][0].as_py() == sys_argv_last:
        time.sleep(0.1)
    return block

sys_argv_last = sys.argv[3]
class Hanging(Store):
    def read(self, address, columns):
        files = read(parse_address(address.text.removeprefix("hanging://")), columns)
        return Source(map_tables(files.rows, hang), files.description)

register("hanging", Hanging())
process("hanging://" + sys.argv[1], sys.argv[2], Settings())
"""


def test_a_driver_killed_mid_run_leaves_the_live_version_and_the_next_run_works(tmp_path: Path) -> None:
    raw, sink = write_shards(tmp_path / "raw", shards=4, rows=50), tmp_path / "dataset"
    live = process(str(raw / "000.parquet"), str(sink), Settings())
    last = str(2**60 + 150)
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": str(ROOT)}

    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(raw), str(sink), last], env=environment, stderr=subprocess.PIPE
    )
    try:
        until(partial(half_written, sink, live["version"]), driver)
    finally:
        driver.kill()
        driver.communicate()

    assert open_dataset(str(sink), CONTRACT).version == live["version"]
    assert ids(sink) == list(range(50))
    process(str(raw), str(sink), Settings())
    assert ids(sink) == list(range(200))


def half_written(sink: Path, live: str) -> bool:
    return len([path for path in sink.glob("versions/*/accepted/*.parquet") if live not in str(path)]) == 3


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Any]:
    """Mounts a small file system of its own, with the given options."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"mounted{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left_is_said_and_nothing_is_published(tmp_path: Path, mount: Any) -> None:
    folder = mount("size=64k")
    table = table_of(
        listing(number, property_type=os.urandom(40).hex(), latitude=str(number / 1e6)) for number in range(5_000)
    )
    pq.write_table(table, tmp_path / "raw.parquet")

    with pytest.raises(NightpriceError, match=r"No space left on the device.*nothing was published") as error:
        process(str(tmp_path / "raw.parquet"), str(folder / "dataset"), Settings())

    assert "Failed to" not in str(error.value)
    assert not list(folder.rglob("manifest.json"))
    assert not list(folder.rglob("*.parquet"))


def test_a_sink_without_rights_is_said(tmp_path: Path, mount: Any) -> None:
    write_csv(tmp_path / "raw.csv", [listing(1)])

    with pytest.raises(StoreError, match=r"cannot be written: .*Check the address and your rights"):
        process(str(tmp_path / "raw.csv"), str(mount("ro") / "dataset"), Settings())
