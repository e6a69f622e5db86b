"""The demo does the whole main job, also over what an earlier one left, and tells what happened."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from nightprice.errors import NightpriceError, UsageError
from pipeline.cli.demo import BATCH_ROWS, demo, service, show
from pipeline.datasets import open_dataset
from pipeline.settings import ForestSettings, Settings, XGBoostSettings
from registry.registry import Registry
from transforms.listings import CONTRACT
from transforms.listings.generate import generate

ROWS = 3_000
SMALL = Settings(random_forest=ForestSettings(trees=8), xgboost=XGBoostSettings(rounds=30))


@pytest.fixture(scope="module")
def ran(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What the demo returned and what it told, in a folder where an earlier one had generated other shards."""
    folder = tmp_path_factory.mktemp("demo") / "made"
    generate(50, folder / "raw", shards=3)
    notes: list[str] = []
    return demo(folder, SMALL, rows=ROWS, note=notes.append), notes


def test_every_row_is_accounted_for(ran: tuple[dict[str, Any], list[str]]) -> None:
    done, _ = ran
    rows, scored = done["dataset"]["rows"], done["scored"]["rows"]
    assert rows["read"] == ROWS == rows["accepted"] + rows["rejected"]
    assert sum(done["dataset"]["reasons"].values()) == rows["rejected"] > 0
    assert scored["read"] == BATCH_ROWS == scored["accepted"] + scored["rejected"]
    assert open_dataset(done["dataset"]["uri"], CONTRACT).version == done["dataset"]["version"]


def test_the_better_model_is_champion_and_scored_the_batch(ran: tuple[dict[str, Any], list[str]]) -> None:
    done, _ = ran
    registry = Registry(str(Path(done["folder"]) / "registry"))
    current = registry.current("listing-price", "champion")
    best = max(done["models"].values(), key=lambda model: model["metrics"]["roc_auc"])
    assert current is not None
    assert f"listing-price@{current.version}" == best["model"] == done["champion"]["model"] == done["scored"]["model"]
    assert len(registry.versions("listing-price")) == 2
    assert len(registry.history("listing-price", "champion")) == 1
    assert best["metrics"]["accuracy"] > best["metrics"]["majority_accuracy"] + 0.1


def test_the_service_answered_with_the_champion(ran: tuple[dict[str, Any], list[str]]) -> None:
    done, _ = ran
    answer = done["asked"]["answer"]

    assert (answer["id"], answer["model"]) == (done["asked"]["record"]["id"], done["champion"]["model"])
    assert (
        answer["price_category"]
        == done["asked"]["label"]
        == max(answer["probabilities"], key=answer["probabilities"].get)
    )


def test_people_see_counts_reasons_metrics_report_and_what_to_type(ran: tuple[dict[str, Any], list[str]]) -> None:
    done, notes = ran
    screen = Console(file=io.StringIO(), width=200)
    screen.print(Group(*show(done)))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert [note.split()[2].rstrip(":") for note in notes] == [
        "generate",
        "process",
        "train",
        "train",
        "promote",
        "predict",
        "serve",
    ]
    for shown in (
        f"{ROWS:,} rows read",
        "price:missing",
        "accuracy",
        "xgboost",
        "the baseline",
        done["report"],
        "nightprice process",
    ):
        assert shown in text
    assert Path(done["report"]).is_file()


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.csv").write_text("precious")
    with pytest.raises(UsageError, match="not an empty folder"):
        demo(tmp_path, SMALL, rows=ROWS)
    assert (tmp_path / "raw" / "mine.csv").read_text() == "precious"


def test_a_contract_without_a_generator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quiet_contract.py").write_text(
        "from dataclasses import replace\nfrom transforms.listings import CONTRACT\n"
        "QUIET = replace(CONTRACT, generate=None)\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        with pytest.raises(UsageError, match='"listing-price" has no generator'):
            demo(tmp_path / "made", SMALL.override(contract="quiet_contract:QUIET"))


def test_a_service_that_does_not_start_says_why(tmp_path: Path) -> None:
    registry = Settings(registry=str(tmp_path / "models"))
    with pytest.raises(NightpriceError, match="models"), service("nope@champion", registry) as ask:
        ask({})
