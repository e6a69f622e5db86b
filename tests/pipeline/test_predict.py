"""Batch scoring: every row scored or rejected with its reason, by the version that was asked for."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from nightprice.errors import NightpriceError
from pipeline.errors import GateRefused
from pipeline.io import exactly, parse_address, read
from pipeline.predict import predict
from pipeline.settings import Settings
from registry.errors import RegistryError
from registry.registry import Registry
from tests.support.raw_listings import listing, write_csv
from tests.support.reference_clean import clean_row
from tests.support.tiny_model import tiny_artifact
from transforms.encode import Encoder
from transforms.listings import CONTRACT

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    registry = Registry(str(tmp_path / "registry"))
    folder = tiny_artifact(tmp_path / "model", version="20260101T000000Z-aaaaaa")
    version = registry.publish(folder, "listing-price")
    registry.promote("listing-price", version, "champion", "a test")
    return Settings(registry=str(tmp_path / "registry"), max_rejected=0.8)


def test_every_row_is_scored_or_rejected(tmp_path: Path, settings: Settings) -> None:
    artifact = Registry(settings.registry).load("listing-price@champion")
    known = next(iter(artifact.vocabulary["neighbourhood"]))
    good = [
        listing(number, neighbourhood_group_cleansed=known, accommodates=str(number), price=None)
        for number in range(1, 6)
    ]
    bad = [
        listing(6, neighbourhood_group_cleansed="Atlantis"),
        listing(7, neighbourhood_group_cleansed=known, latitude="100"),
    ]
    source = write_csv(tmp_path / "raw.csv", [*good, *bad])

    manifest = predict("listing-price@champion", str(source), str(tmp_path / "scored"), settings)

    assert manifest["rows"] == {"read": 7, "accepted": 5, "rejected": 2}
    assert manifest["reasons"] == {"neighbourhood:unknown": 1, "latitude:out_of_range": 1}
    assert manifest["model"] == artifact.ref
    scored = pq.read_table(tmp_path / "scored" / "versions" / manifest["version"] / "accepted").sort_by("id")
    assert scored["model"].to_pylist() == [artifact.ref] * 5
    for row, raw in zip(scored.to_pylist(), good, strict=True):
        alone = artifact.predict(Encoder(CONTRACT, artifact.vocabulary).record(clean_row(raw, CONTRACT).record)[None])[
            0
        ]
        batch = np.array([row[f"probability_{label}"] for label in artifact.labels], np.float32)
        assert batch.tobytes() == alone.tobytes()
        assert row["price_category"] == artifact.labels[int(alone.argmax())]


class Other:
    """Somebody else's work, which leaves one CPU."""

    def is_there(self) -> bool:
        return True


def test_one_free_cpu_is_enough(tmp_path: Path, settings: Settings) -> None:
    known = next(iter(Registry(settings.registry).load("listing-price@champion").vocabulary["neighbourhood"]))
    source = write_csv(tmp_path / "raw.csv", [listing(1, neighbourhood_group_cleansed=known)])
    other: Any = ray.remote(num_cpus=3)(Other).remote()
    assert ray.get(other.is_there.remote())
    try:
        manifest = predict("listing-price@champion", str(source), str(tmp_path / "scored"), settings)
    finally:
        ray.kill(other)

    assert manifest["rows"]["accepted"] == 1


def test_a_source_without_prices_can_be_scored(tmp_path: Path, settings: Settings) -> None:
    known = next(iter(Registry(settings.registry).load("listing-price@champion").vocabulary["neighbourhood"]))
    path = write_csv(tmp_path / "raw.csv", [listing(1, neighbourhood_group_cleansed=known)])
    header, row = path.read_text().splitlines()
    path.write_text(f"{header.removesuffix(',price')}\n{row.removesuffix(',$75.00')}\n")

    assert predict("listing-price@champion", str(path), str(tmp_path / "scored"), settings)["rows"]["accepted"] == 1


def test_rows_of_another_city_are_refused_and_the_model_is_named(tmp_path: Path, settings: Settings) -> None:
    source = write_csv(tmp_path / "raw.csv", [listing(1, neighbourhood_group_cleansed="Atlantis")])

    message = (
        r"listing-price@20260101T000000Z-aaaaaa does not know the neighbourhood of 1 of 1 rows: it knows Bronx, Que"
    )
    with pytest.raises(GateRefused, match=message):
        predict("listing-price@champion", str(source), str(tmp_path / "scored"), settings)


def test_an_alias_that_is_not_there_is_named(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(RegistryError, match='"champion"'):
        predict(
            "listing-price@champio",
            str(write_csv(tmp_path / "raw.csv", [listing(1)])),
            str(tmp_path / "scored"),
            settings,
        )


def test_scored_rows_can_be_read_as_a_source(tmp_path: Path, settings: Settings) -> None:
    known = next(iter(Registry(settings.registry).load("listing-price@champion").vocabulary["neighbourhood"]))
    source = write_csv(tmp_path / "raw.csv", [listing(1, neighbourhood_group_cleansed=known)])
    manifest = predict("listing-price@champion", str(source), str(tmp_path / "scored"), settings)

    accepted = parse_address(f"{tmp_path}/scored/versions/{manifest['version']}/accepted")
    rows = read(accepted, exactly("id", "price_category")).rows.take_all()

    assert rows[0]["id"] == 2**60 + 1


def test_a_block_that_kills_every_worker_is_an_error_and_not_tried_for_ever(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a task is tried again three times."""
    tries = tmp_path / "tries"

    def deadly(raw: pa.Table, **_: Any) -> pa.Table:
        with tries.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
        return raw

    monkeypatch.setattr("pipeline.predict.score_block", deadly)
    with pytest.raises(
        NightpriceError, match=r"^The workers of a task died, every time that it was tried\. Nothing was published"
    ):
        predict(
            "listing-price@champion",
            str(write_csv(tmp_path / "raw.csv", [listing(1)])),
            str(tmp_path / "scored"),
            settings,
        )

    assert tries.read_text() == "xxxx"
