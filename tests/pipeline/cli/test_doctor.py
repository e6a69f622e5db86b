"""The doctor: what it looks at, and that it says what is wrong."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightprice.settings import setting_names
from pipeline.cli.commands import app
from pipeline.cli.doctor import examine
from pipeline.cli.extras import EXTRAS
from pipeline.settings import Settings
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("alone")


def about(found: dict[str, Any], what: str) -> dict[str, Any]:
    (finding,) = [finding for finding in found["findings"] if finding["about"] == what]
    return dict(finding)


def test_a_sound_machine_passes_and_nothing_is_made(tmp_path: Path) -> None:
    found = examine()

    assert found["ok"], found
    assert about(found, "extra pipeline")["status"] == "ok"
    assert "does not exist yet" in about(found, "registry")["found"]
    assert list(tmp_path.iterdir()) == []


def test_all_settings_are_listed_with_value_and_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nightprice.toml").write_text("[gate]\nmetric = 'accuracy'\n")
    monkeypatch.setenv("NIGHTPRICE_SEED", "7")

    settings = examine(registry="elsewhere")["settings"]

    assert list(settings) == list(setting_names(Settings))
    assert settings["seed"] == {"value": 7, "origin": "NIGHTPRICE_SEED"}
    assert settings["gate.metric"] == {"value": "accuracy", "origin": "file nightprice.toml"}
    assert settings["registry"] == {"value": "elsewhere", "origin": "command line"}


def test_a_wrong_setting_is_a_finding_and_the_rest_is_still_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SED", "7")

    found = examine()

    assert not found["ok"]
    assert 'Did you mean "NIGHTPRICE_SEED"?' in about(found, "settings")["found"]
    assert about(found, "ray")["status"] == "ok"


def test_a_cluster_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")

    found = examine()

    assert not found["ok"]
    assert "unset it" in about(found, "ray")["found"]


BROKEN = """
from dataclasses import replace
from transforms.listings import CONTRACT
MINE = replace(CONTRACT, target="prize", baseline=("bedroom",))
"""


def test_each_thing_wrong_with_the_contract_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = about(examine(), "contract")
    Path("doctors_contract.py").write_text(BROKEN)
    monkeypatch.setenv("NIGHTPRICE_CONTRACT", "doctors_contract:MINE")

    examination = examine()

    wrong = [finding for finding in examination["findings"] if finding["about"] == "contract"]
    assert (sound["status"], "listing-price" in sound["found"]) == ("ok", True)
    assert not examination["ok"]
    assert [finding["status"] for finding in wrong] == ["failed"] * len(wrong)
    assert 'The target "prize" is not a field. Did you mean "price"?' in wrong[0]["found"]
    assert any('The baseline names "bedroom"' in finding["found"] for finding in wrong)


def test_a_label_that_does_not_fit_the_contract_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_BINS", "30,20,40")

    assert about(examine(), "contract")["found"].startswith("NIGHTPRICE_BINS: ")


@pytest.mark.parametrize("what", ["registry", "cache"])
def test_a_place_that_can_not_be_written_fails(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv({"registry": "NIGHTPRICE_REGISTRY", "cache": "NIGHTPRICE_CACHE_DIR"}[what], "file/below")

    found = about(examine(), what)

    assert found["status"] == "failed"
    assert "file/below can't be written" in found["found"]
    assert found["fix"]


def test_a_registry_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine(registry="ftp://models")

    assert about(found, "registry")["status"] == "failed"


def test_the_command_shows_it_and_ends_with_1_if_something_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = CliRunner().invoke(app, ["doctor"])
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    shown, machine = CliRunner().invoke(app, ["doctor"]), CliRunner().invoke(app, ["doctor", "--json"])

    assert sound.exit_code == 0
    assert re.search(r"seed +0 +default", sound.stdout)
    assert "Everything that the pipeline needs is there." in sound.stdout
    assert shown.exit_code == machine.exit_code == 1
    assert "1 of" in shown.stdout
    assert json.loads(machine.stdout)["ok"] is False


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev"}
