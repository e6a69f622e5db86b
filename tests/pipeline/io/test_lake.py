"""What only tables of lakes do: states that can be read again, and commits. The rest is in test_store_contract.py."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import deltalake
import pyarrow as pa
import pytest
import ray.data

from nightprice.address import parse_address
from nightprice.errors import UsageError
from pipeline.io import ACCEPTED, Staged, StoreError, WriteStats, exactly, open_published, read, tag, write
from pipeline.io.files.locate import check_apart
from pipeline.io.lake import delta, iceberg
from pipeline.io.lake.staged import StagedFiles, _write_file
from pipeline.io.lake.table import CommitConflict, DataFile, LakeTable
from pipeline.manifests import DatasetManifest
from tests.support import stores
from tests.support.iceberg_catalog import CATALOG
from tests.support.stores import rows_at
from transforms.clean import REASONS_TYPE

pytestmark = pytest.mark.usefixtures("ray_session")

TABLES: dict[str, type[LakeTable]] = {"delta": delta.DeltaTable, "iceberg": iceberg.IcebergTable}
REJECTED_SCHEMA = pa.schema([("id", pa.string()), ("reasons", REASONS_TYPE)])


@pytest.fixture(params=sorted(TABLES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> stores.Store:
    if kind == "delta":
        return stores.delta(f"delta://{tmp_path}")
    return stores.iceberg(request.getfixturevalue("iceberg_namespace"))


@pytest.fixture
def sink(store: stores.Store) -> str:
    assert store.sink
    return store.sink


def block(ids: list[int], **columns: Any) -> pa.Table:
    """Accepted rows, and as many rejected ones."""
    accepted = pa.table({"id": pa.array(ids, pa.int64()), **columns})
    rejected = pa.table({"id": [str(id) for id in ids], "reasons": [["id:odd"]] * len(ids)}, schema=REJECTED_SCHEMA)
    return tag(accepted, rejected, pa.nulls(len(ids), REASONS_TYPE))


def written(sink: str, rows: ray.data.Dataset | pa.Table) -> AbstractContextManager[Staged]:
    dataset = ray.data.from_arrow(rows) if isinstance(rows, pa.Table) else rows
    return write(parse_address(sink), dataset, REJECTED_SCHEMA, "id")


def publish(sink: str, rows: ray.data.Dataset | pa.Table) -> str:
    with written(sink, rows) as staged:
        staged.publish(cast(DatasetManifest, {"version": staged.version, "rows": {"accepted": staged.stats.accepted}}))
    return staged.version


def ids_of(sink: str) -> tuple[str, list[int], list[int]]:
    """The version of the dataset at an address, the ids of its accepted rows and of its rejected ones."""
    published = open_published(parse_address(sink))
    accepted, rejected = (
        sorted(int(row["id"]) for row in read(address, exactly("id")).rows.take_all())
        for address in (published.accepted, published.rejected)
    )
    return published.manifest["version"], accepted, rejected


def table_of(kind: str, uri: str) -> LakeTable:
    return TABLES[kind](parse_address(uri))


def data_files(kind: str, uri: str) -> set[str]:
    """The names of all Parquet files below a table."""
    folder = Path(table_of(kind, uri).location()[1])
    return {path.name for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}


def test_a_version_can_be_read_again_by_its_name_and_by_its_number(kind: str, sink: str) -> None:
    first = publish(sink, block([1, 2, 3]))
    number = next(table_of(kind, sink).snapshots()).id
    second = publish(sink, block([4]))

    assert ids_of(sink) == (second, [4], [4])
    assert ids_of(f"{sink}?version={first}") == (first, [1, 2, 3], [1, 2, 3])
    assert ids_of(f"{sink}?version={number}") == (first, [1, 2, 3], [1, 2, 3])
    assert rows_at(f"{sink}_rejected?version={first}", exactly("id")).count() == 3


def test_the_manifest_of_what_reads_a_table_names_the_state(kind: str, sink: str) -> None:
    publish(sink, block([1]))
    number = next(table_of(kind, sink).snapshots()).id
    source = read(parse_address(sink), exactly("id"))
    publish(sink, block([2]))

    assert source.description == [{"path": f"{sink}?version={number}"}]
    assert source.rows.take_all() == [{"id": 1, "source_file": f"{sink}?version={number}"}]


@pytest.mark.parametrize("version", ["20261123T134500Z-1a2b3c", "99"])
def test_a_version_that_is_not_there_is_one_clear_error(sink: str, version: str) -> None:
    publish(sink, block([1]))
    with pytest.raises(StoreError, match=f'is not a processed dataset of version "{version}"'):
        open_published(parse_address(f"{sink}?version={version}"))
    with pytest.raises(StoreError, match=rf"^[^\n]*{version}[^\n]*$"):
        rows_at(f"{sink}?version={version}", exactly("id"))


def test_what_other_programs_commit_later_is_not_mistaken_for_the_dataset(kind: str, sink: str) -> None:
    """Promise: a manifest and its rows stay together."""
    version = publish(sink, block([1, 2]))
    more = pa.table({"id": pa.array([3], pa.int64())})
    if kind == "delta":
        deltalake.write_deltalake(sink.removeprefix("delta://"), more, mode="append")
        deltalake.DeltaTable(sink.removeprefix("delta://")).optimize.compact()
    else:
        from pyiceberg.catalog import load_catalog

        load_catalog(CATALOG).load_table(sink.rpartition("/")[2]).append(more)

    assert ids_of(sink) == (version, [1, 2], [1, 2])
    assert rows_at(sink, exactly("id")).count() == 3


def test_a_table_of_another_program_is_not_replaced(store: stores.Store) -> None:
    raw = store.put(pa.table({"id": ["1"]}))
    with pytest.raises(StoreError, match="was not written by nightprice"), written(raw, block([2])):
        pytest.fail("it was written")
    assert [row["id"] for row in rows_at(raw, exactly("id")).take_all()] == ["1"]


def test_a_column_can_be_added(sink: str) -> None:
    first = publish(sink, block([1]))
    publish(sink, block([2], name=["b"]))

    assert rows_at(sink, exactly("id", "name")).select_columns(["id", "name"]).take_all() == [{"id": 2, "name": "b"}]
    assert ids_of(f"{sink}?version={first}") == (first, [1], [1])


def test_nothing_is_left_of_an_attempt_that_died(kind: str, sink: str) -> None:
    staged = StagedFiles(table_of(kind, sink), REJECTED_SCHEMA)
    died = _write_file(staged._locations, staged.version, ACCEPTED, block([1]), "000000-0000")
    assert data_files(kind, sink) == {Path(died.path).name}

    staged.write(ray.data.from_arrow(block([1])), "id")

    names = {Path(file.path).name for file in staged.stats.written if isinstance(file, DataFile)}
    assert data_files(kind, sink) | data_files(kind, f"{sink}_rejected") == names
    assert len(names) == 2


def test_nothing_is_left_of_a_version_that_was_not_published(kind: str, sink: str) -> None:
    publish(sink, block([1]))
    before = data_files(kind, sink), data_files(kind, f"{sink}_rejected")
    with written(sink, block([2])):
        assert data_files(kind, sink) > before[0]

    assert (data_files(kind, sink), data_files(kind, f"{sink}_rejected")) == before


def test_a_file_that_got_lost_is_noticed(kind: str, sink: str) -> None:
    staged = StagedFiles(table_of(kind, sink), REJECTED_SCHEMA)
    staged.stats = WriteStats(accepted=1, written=[DataFile(ACCEPTED, f"{staged.version}/0.parquet", 500, 1)])
    with pytest.raises(StoreError, match="1 of 1 written files are gone or have changed"):
        staged._reconcile(ACCEPTED)


def test_a_commit_between_the_look_and_our_own_is_replaced(
    kind: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: the run that publishes last is live, with all of its rows and none of the other's."""
    publish(sink, block([1]))
    with written(sink, block([2])) as staged:
        stale = deltalake.DeltaTable(sink.removeprefix("delta://")) if kind == "delta" else _iceberg_table(sink)
        opened = "_open" if kind == "delta" else "_load"
        fresh = getattr(TABLES[kind], opened)
        old = [stale]
        publish(sink, block([3]))
        monkeypatch.setattr(
            TABLES[kind],
            opened,
            lambda table, *version: old.pop() if old and table.address.text == sink else fresh(table, *version),
        )
        staged.publish(cast(DatasetManifest, {"version": staged.version, "rows": {}}))
        assert not old
    monkeypatch.undo()

    assert ids_of(sink) == (staged.version, [2], [2])
    assert rows_at(sink, exactly("id")).count() == 1


def _iceberg_table(sink: str) -> Any:
    from pyiceberg.catalog import load_catalog

    return load_catalog(CATALOG).load_table(sink.rpartition("/")[2])


def test_a_commit_that_arrived_before_its_error_is_not_made_twice(
    kind: str, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = TABLES[kind].try_commit

    def then_fails(table: LakeTable, *arguments: Any) -> None:
        commit(table, *arguments)
        raise CommitConflict("no answer")

    monkeypatch.setattr(TABLES[kind], "try_commit", then_fails)
    version = publish(sink, block([1]))

    assert ids_of(sink) == (version, [1], [1])
    assert len(list(table_of(kind, sink).snapshots())) == 1


def test_a_table_that_always_changes_is_given_up(kind: str, sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise CommitConflict("another was faster")

    live = publish(sink, block([1]))
    monkeypatch.setattr(TABLES[kind], "try_commit", refuse)
    with pytest.raises(StoreError, match="another was faster"):
        publish(sink, block([2]))

    assert ids_of(sink) == (live, [1], [1])


def test_a_version_is_no_sink(sink: str) -> None:
    with (
        pytest.raises(StoreError, match="cannot be written to: it names a version"),
        written(f"{sink}?version=1", block([1])),
    ):
        pytest.fail("it was written")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("delta://table", "names no table"),
        ("delta://host/table", "names no table"),
        ("delta:///", "names no table"),
        ("delta+s3:///table", "names no table"),
        ("delta+s3://bucket", "names no table"),
        ("delta:///data/table?region=eu", "has no other parameters"),
        ("delta:///data/table?version=", "has no other parameters"),
        ("delta+s3://key:s3cr3t@bucket/table", "no credentials"),
        ("iceberg://catalog", "names no table"),
        ("iceberg://catalog/table", "names no table"),
        ("iceberg:///namespace.table", "names no table"),
        ("iceberg://catalog/namespace.", "names no table"),
        ("iceberg://catalog/namespace/table.x", "names no table"),
        ("iceberg://user:s3cr3t@catalog/namespace.table", "no credentials"),
    ],
)
def test_wrong_addresses(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        rows_at(uri, exactly("id"))
    assert "s3cr3t" not in str(caught.value)


def test_a_catalog_that_is_not_configured() -> None:
    with pytest.raises(StoreError, match=r"URI missing.*PYICEBERG_CATALOG__NOT_THERE__URI\.$"):
        rows_at("iceberg://not-there/namespace.table", exactly("id"))


def test_a_namespace_that_is_not_there() -> None:
    with (
        pytest.raises(StoreError, match=r"Namespace nowhere does not exist.*namespace, which must exist"),
        written(f"iceberg://{CATALOG}/nowhere.table", block([1])),
    ):
        pytest.fail("it was written")


def test_a_table_does_not_name_code_to_import(iceberg_namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyiceberg.io
    from pyiceberg.catalog import load_catalog

    named = "pyiceberg.io.fsspec.FsspecFileIO"
    load_catalog(CATALOG).create_table(
        f"{iceberg_namespace}.raw", pa.schema([("id", pa.int64())]), properties={"py-io-impl": named}
    )
    imported = pyiceberg.io._import_file_io
    monkeypatch.setattr(
        pyiceberg.io,
        "_import_file_io",
        lambda name, *rest: pytest.fail("it was imported") if name == named else imported(name, *rest),
    )
    with pytest.raises(StoreError, match=r"names code to import \(py-io-impl"):
        rows_at(f"iceberg://{CATALOG}/{iceberg_namespace}.raw", exactly("id"))


@pytest.mark.parametrize(("kind", "module"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_a_missing_extra(module: str, sink: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(sink, block([1]))
    monkeypatch.setitem(sys.modules, module, None)
    if kind == "delta":
        monkeypatch.setitem(sys.modules, "deltalake.exceptions", None)
    with pytest.raises(StoreError, match=rf'pip install "nightprice\[{kind}\]"'):
        rows_at(sink, exactly("id"))


def test_a_sink_in_the_folder_of_its_source_is_refused() -> None:
    for source in ("/data", "delta:///data", "delta:///data/table?version=7"):
        with pytest.raises(UsageError, match="lies in the source"):
            check_apart(parse_address(source), parse_address("delta:///data/table"))
    check_apart(parse_address("delta:///data/raw"), parse_address("delta:///data/table"))
