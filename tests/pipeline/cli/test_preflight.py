"""What is called wrongly ends with 2 before Ray starts, and so does what would be lost with a job's folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.commands import app
from pipeline.cluster import session
from registry.registry import Registry
from tests.support.tiny_model import FIRST, NAME, SECOND, tiny_artifact

pytestmark = pytest.mark.usefixtures("alone")


def call(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise AssertionError("Ray was started.")

    monkeypatch.setattr(session, "start", start)


@pytest.fixture
def champion(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "nightprice-registry"))
    registry.publish(tiny_artifact(tmp_path / "trained", FIRST), NAME)
    registry.promote(NAME, FIRST, "champion", "a test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("process --source gone --sink dataset", "no data file found"),
        ("process --source file:///gone%20away --sink dataset", "no data file found"),
        ("process --source notes.txt --sink dataset", "not a data file of a known kind"),
        ("process --source wat://x --sink dataset", "there is no store"),
        ("process --source rows.csv --sink https://host/dataset", "can only be read"),
        ("train --data gone", "not a processed dataset"),
        ("train --data rows.csv", "not a processed dataset"),
        ("train --data gone --compare nothing", "not a processed dataset"),
        (f"evaluate --model {NAME}@champon --data gone", 'Did you mean "champion"?'),
        (f"evaluate --model {NAME}@champion --data gone", "not a processed dataset"),
        (f"predict --model {NAME}@2 --source rows.csv --sink scored", "has no version"),
        (f"predict --model {NAME}@champion --source gone --sink scored", "no data file found"),
        ("predict --model gone --source rows.csv --sink scored", "neither a folder nor"),
        (f"promote {NAME}@champion --registry gone", "There is no registry"),
        (f"promote {NAME}@champion --registry ftp://x/y", "can't be a registry"),
    ],
)
@pytest.mark.usefixtures("champion")
def test_what_is_called_wrongly_ends_with_2_before_ray_starts(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "rows.csv").write_text("id\n1\n")

    result = call(*line.split())

    assert message in result.stderr
    assert result.exit_code == 2


COMMANDS = (
    "process --source rows.csv --sink dataset",
    "train --data dataset",
    f"evaluate --model {NAME}@champion --data dataset",
    f"predict --model {NAME}@champion --source rows.csv --sink scored",
    f"promote {NAME}@{SECOND} --if-better",
    "demo",
)
LABELLING = tuple(line for line in COMMANDS if line.startswith(("process", "train", "demo")))


@pytest.mark.parametrize(
    ("line", "settings", "message"),
    [
        *((line, {"contract": "gone:CONTRACT"}, 'contract "gone:CONTRACT" can\'t be loaded') for line in COMMANDS),
        *((line, {"bins": "[20, 30]"}, "2 bins need 3 different labels") for line in LABELLING),
        *((line, {"seed": "many"}, "seed can't be 'many'") for line in COMMANDS),
        ("demo", {"contract": "tests.support.other_contract:PARCELS"}, "has no generator"),
    ],
)
@pytest.mark.usefixtures("champion")
def test_settings_that_can_not_be_end_with_2_before_ray_starts(
    line: str, settings: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/manifest.json").write_text('{"version": "1", "rows": {}}')
    Registry(str(tmp_path / "nightprice-registry")).publish(tiny_artifact(tmp_path / "second", SECOND), NAME)
    for name, value in settings.items():
        monkeypatch.setenv(f"NIGHTPRICE_{name.upper()}", value)

    result = call(*line.split())

    assert (result.exit_code, message in result.stderr) == (2, True), result.output


@pytest.mark.parametrize("model", ["", f"--model {NAME}@champion"])
@pytest.mark.usefixtures("champion")
def test_a_sink_in_its_source_ends_with_2_before_ray_starts(model: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/rows.csv").write_text("id\n1\n")

    result = call("predict" if model else "process", *model.split(), "--source", "raw", "--sink", "raw/clean")

    assert result.exit_code == 2
    assert 'The sink "raw/clean" lies in the source "raw"' in result.stderr


@pytest.fixture
def job_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like Ray's copy of a job's working folder, as the current one."""
    folder = tmp_path / "session_1/runtime_resources/working_dir_files/_ray_pkg_0123456789abcdef"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "rows.csv").write_text("id\n1\n")
    registry = Registry(str(tmp_path / "models"))
    registry.publish(tiny_artifact(tmp_path / "trained", FIRST), NAME)
    registry.promote(NAME, FIRST, "champion", "a test")
    (tmp_path / "models").rename(folder / "models")
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "process --source rows.csv --sink dataset",
        "process --source rows.csv --sink {folder}/dataset",
        "process --source rows.csv --sink sqlite:///clean.db?table=x",
        "generate --rows 10 --out raw",
        "demo",
        f"predict --model {NAME}@champion --registry models --source rows.csv --sink scored",
        f"promote {NAME}@{FIRST} --alias other --registry models",
    ],
)
def test_a_place_that_goes_with_the_job_is_refused(line: str, job_folder: Path) -> None:
    before = sorted(job_folder.rglob("*"))

    result = call(*line.format(folder=job_folder).split())

    assert result.exit_code == 2, result.output
    assert "temporary copy of the working folder" in result.stderr
    assert sorted(job_folder.rglob("*")) == before


def test_so_is_a_registry_that_a_job_would_train_into(job_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "dataset"
    data.mkdir()
    (data / "manifest.json").write_text('{"version": "1", "rows": {}}')

    result = call("train", "--data", data)

    assert result.exit_code == 2
    assert f'"{job_folder}/nightprice-registry" lies in Ray\'s temporary copy' in result.stderr


def test_a_broken_version_is_marked_and_hides_no_other(champion: None, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "nightprice-registry"))
    registry.publish(tiny_artifact(tmp_path / "second", SECOND), NAME)
    (tmp_path / "nightprice-registry" / NAME / "versions" / SECOND / "manifest.json").write_text("[" * 200_000)

    result, as_json = call("models", NAME), call("models", NAME, "--json")

    assert (result.exit_code, as_json.exit_code) == (0, 0), result.output
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("2026")] == ["champion", "broken"]
    assert "manifest.json has changed since the model was written" in " ".join(result.stdout.split())
    listed = json.loads(as_json.stdout)["versions"]
    assert [(item["version"], "error" in item) for item in listed] == [(FIRST, False), (SECOND, True)]


def test_what_a_record_says_brings_no_commands_to_a_terminal(champion: None, tmp_path: Path) -> None:
    rubbish = "\x1b[2J\x9b31m\u202e"
    registry = Registry(str(tmp_path / "nightprice-registry"))
    registry.publish(tiny_artifact(tmp_path / "second", SECOND), NAME)
    registry.promote(NAME, SECOND, "champion", f"why {rubbish}", who=f"who {rubbish}")

    for result in (
        call("history", NAME),
        call("history", NAME, "--json"),
        call("history", NAME, "--alias", f"a{rubbish}"),
        call("promote", f"{NAME}@{rubbish}"),
        call("models", f"{NAME}{rubbish}"),
    ):
        assert "1b" in result.output, "it is escaped"
        assert all(sign.isprintable() or sign == "\n" for sign in result.output), ascii(result.output)
