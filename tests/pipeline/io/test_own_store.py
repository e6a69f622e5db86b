"""The store of docs/stores.md, as a package of its own: read, written and trained from."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import feather
from ray import cloudpickle

from pipeline.datasets import open_dataset
from pipeline.errors import GateRefused
from pipeline.io import StoreError
from pipeline.process import process
from pipeline.settings import Settings, XGBoostSettings
from pipeline.train.train import train
from registry.registry import Registry
from tests.support.paths import ROOT
from tests.support.raw_listings import listing, table_of
from transforms.listings import CONTRACT

pytestmark = pytest.mark.usefixtures("ray_session")
PAGE = (ROOT / "docs" / "stores.md").read_text("utf-8")


def block(language: str) -> str:
    """The one block of code of the page in a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with the store and its entry point, as an installer leaves it; nothing is registered by hand."""
    site = tmp_path / "site-packages"
    (site / "feather_store-1.dist-info").mkdir(parents=True)
    (site / "feather_store.py").write_text(block("python"))
    (site / "feather_store-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: feather-store\n")
    ((group, points),) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (site / "feather_store-1.dist-info" / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("pipeline.io.stores._registered", {})
    # The workers of this session started before the package was there.
    module = importlib.import_module("feather_store")
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["feather_store"]


def raw(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir()
    for number in range(2):
        feather.write_feather(table_of(rows[number::2]), folder / f"{number}.feather")
    return f"feather://{folder}"


def rows(count: int) -> list[dict[str, Any]]:
    """Prices that follow from the number of guests."""
    return [
        listing(number, accommodates=str(number % 8 + 1), price=f"${60 * (number % 8 + 1)}") for number in range(count)
    ]


def test_a_model_is_trained_on_what_was_processed(tmp_path: Path) -> None:
    source = raw(tmp_path / "raw", [*rows(400), listing(401, price="ask")])
    sink = f"feather://{tmp_path}/dataset"
    settings = Settings(xgboost=XGBoostSettings(rounds=5, max_depth=3))

    manifest = process(source, sink, settings)
    result = train(sink, registry=str(tmp_path / "registry"), settings=settings)

    assert manifest["rows"] == {"read": 401, "accepted": 400, "rejected": 1}
    assert [item["path"] for item in manifest["sources"]] == [f"{tmp_path}/raw/{number}.feather" for number in (0, 1)]
    model = Registry(str(tmp_path / "registry")).load(result["model"])
    assert model.manifest["dataset"] == {"uri": sink, "version": manifest["version"], "rows": manifest["rows"]}
    assert not list(tmp_path.glob("dataset/**/*.parquet"))


def test_a_refused_version_keeps_its_rejected_rows_and_the_old_one_stays(tmp_path: Path) -> None:
    sink = f"feather://{tmp_path}/dataset"
    live = process(raw(tmp_path / "good", rows(4)), sink, Settings())

    with pytest.raises(GateRefused, match="They are kept at ") as caught:
        process(raw(tmp_path / "bad", [*rows(2), listing(3, price="ask")]), sink, Settings())

    assert open_dataset(sink, CONTRACT).manifest == live
    assert open_dataset(sink, CONTRACT).rows(["id"]).count() == 4
    kept = Path(str(caught.value).partition("kept at ")[2].partition(";")[0])
    assert sum(len(feather.read_table(path)) for path in kept.glob("*.feather")) == 1
    assert not (kept.parent / "accepted").exists()


def test_what_is_not_a_dataset_of_the_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r'"feather://.*" is not a processed dataset'):
        open_dataset(f"feather://{tmp_path}", CONTRACT)
