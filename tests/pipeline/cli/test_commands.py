"""The command line: what every command has in common, then each command once on real data."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

import nightprice
from pipeline.cli.command import Run, _run
from pipeline.cli.commands import app
from pipeline.errors import GateRefused
from registry.registry import Registry
from tests.support.paths import ROOT
from tests.support.tiny_model import FIRST, NAME, SECOND, tiny_artifact

COMMANDS = (
    "demo",
    "generate",
    "init",
    "process",
    "train",
    "evaluate",
    "predict",
    "promote",
    "rollback",
    "models",
    "history",
    "serve",
    "doctor",
)


pytestmark = pytest.mark.usefixtures("alone")


def call(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def answer(*arguments: object) -> Any:
    """The JSON object that a command prints."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def spawn(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """Run `python -m pipeline` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def python(code: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh interpreter that finds the packages."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions, of which the first is the champion."""
    found = Registry(str(tmp_path / "nightprice-registry"), tmp_path / "cache")
    for seed, version in enumerate((FIRST, SECOND)):
        found.publish(tiny_artifact(tmp_path / f"trained-{seed}", version, seed), NAME)
    found.promote(NAME, FIRST, "champion", "the first")
    return found


# What all commands share


def test_help_names_every_command_and_imports_no_library() -> None:
    libraries = ("ray", "pyarrow", "numpy", "pydantic", "pandas")
    code = f"import sys, pipeline.cli.commands; print([name for name in {libraries} if name in sys.modules])"

    shown, imported = call("--help").stdout, python(code)

    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", shown)] == []
    assert imported.stdout.strip() == "[]", imported.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_an_example_that_is_right(name: str) -> None:
    shown = call(name, "--help").stdout
    example = re.search(r"Example: nightprice (.+?)\s*\Z", shown, re.DOTALL)

    assert example is not None, shown
    assert [option for option in ("--json", "--debug", "--settings") if option not in shown] == []
    assert parses(" ".join(example[1].split()))


def parses(line: str) -> bool:
    import shlex

    name, *arguments = shlex.split(line)
    group: Any = typer.main.get_command(app)
    group.commands[name].make_context(name, arguments)
    return True


@pytest.mark.parametrize(
    "line",
    [
        "generate --rows -1 --out raw",
        "generate --rows 10 --out raw --shards 0",
        "generate --rows 10 --out raw --bad-rows 1.5",
        "generate --rows 10 --out raw --seed -1",
        "generate --rows many --out raw",
        "generate --out raw",
        "process --source raw --sink dataset --max-rejected 2",
        "process --source raw --sink dataset --max-rejected -0.1",
        "process --source raw",
        "train --data dataset --workers 0",
        "train --data dataset --estimator xgbost",
        "promote",
        "proces --source raw --sink dataset",
        "models --no-such-option",
        "models --settings gone.toml",
        "promote listing-price@1 --data dataset",
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(line: str, tmp_path: Path) -> None:
    result = call(*line.split())

    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["nightprice", "pipeline"])
def test_the_version_is_printed_wherever_it_starts(package: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", package, "--version"]

    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert shown == nightprice.__version__
    assert re.fullmatch(r"\d+\.\d+.*|0\+source", shown)


def test_an_error_is_one_line_and_with_json_also_an_object() -> None:
    plain, machine, debug = (call("history", *options) for options in ([], ["--json"], ["--debug"]))

    assert plain.exit_code == machine.exit_code == 2
    assert plain.stderr.startswith("Error: ")
    assert plain.stderr.count("\n") == 1
    assert plain.stdout == ""
    assert json.loads(machine.stdout) == {"error": plain.stderr.removeprefix("Error: ").strip(), "exit_code": 2}
    assert "Traceback" in debug.stderr


def test_a_gate_that_refuses_ends_with_3(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(run: Run) -> None:
        raise GateRefused("not better")

    assert _run(refuse, {}, None, json=False, debug=False) == 3
    assert capfd.readouterr().err == "Error: not better\n"


def test_standard_output_holds_the_result_alone_whoever_prints() -> None:
    """Python, C code and child processes print on the way; only the descriptor tells them apart."""
    code = """
import os, subprocess
from pipeline.cli.command import _run
def chatty(run):
    print("python")
    os.write(1, b"c\\n")
    subprocess.run(["echo", "child"], check=True)
    run.screen.result({"city": "São Paulo", "auc": float("nan")}, "shown")
raise SystemExit(_run(chatty, {}, None, json=True, debug=False))
"""
    done = python(code)

    assert done.returncode == 0
    assert json.loads(done.stdout) == {"city": "São Paulo", "auc": None}
    assert done.stdout.count("\n") == 1
    assert sorted(done.stderr.split()) == ["c", "child", "python"]


def test_ctrl_c_ends_with_130_and_one_line() -> None:
    with spawn("generate", "--rows", 30_000_000, "--out", "raw", "--shards", 3_000) as process:
        try:
            while not list(Path("raw").glob("*.parquet")):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 130
    assert errors.splitlines()[1:] == ["Error: Interrupted."]


LOST = " Nothing was published: what was live stays live."


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("process --source raw --sink dataset", LOST),
        ("train --data dataset", LOST),
        ("predict --model a@1 --source raw --sink scored", LOST),
        ("promote a@1", LOST),
        ("rollback", LOST),
        ("evaluate --model a@1 --data dataset", ""),
        ("serve", ""),
        ("models", ""),
        ("history", ""),
        ("demo", ""),
    ],
)
def test_an_interrupted_command_speaks_of_publishing_only_if_it_publishes(
    line: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "settings", interrupted)

    result = call(*line.split())

    assert (result.exit_code, result.stderr) == (130, f"Error: Interrupted.{lost}\n")


def test_a_reader_that_went_away_is_no_trace(registry: Registry) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    process = spawn("models", "--json", stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is Linux")
def test_a_full_disk_is_said(registry: Registry) -> None:
    with open("/dev/full", "w") as full:
        process = spawn("models", "--json", stdout=full)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert errors == "Error: No space left on device. Free some space, or write to another place.\n"


def test_a_folder_that_can_not_be_made_is_said() -> None:
    Path("file").write_text("")

    result = call("generate", "--rows", 10, "--out", "file/raw")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: file/raw: Not a directory.")


@pytest.mark.parametrize(
    ("address", "said", "code"),
    [
        ("127.0.0.1:9", "No Ray cluster answers at RAY_ADDRESS=127.0.0.1:9 (Connection refused)", 1),
        ("http://127.0.0.1:8265", "which only `ray job submit` uses", 2),
    ],
)
def test_a_cluster_that_does_not_answer_is_said_at_once(address: str, said: str, code: int) -> None:
    Path("raw").mkdir()
    Path("raw/rows.csv").touch()
    process = spawn("process", "--source", "raw", "--sink", "dataset", env={"RAY_ADDRESS": address})

    _, errors = process.communicate(timeout=20)

    assert process.returncode == code
    assert said in errors
    assert "Traceback" not in errors


def test_a_missing_extra_is_answered_with_its_line() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from pipeline.cli.commands import app\n"
        "app(['process', '--source', 'raw', '--sink', 'dataset'])"
    )

    done = python(code)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("Install it: pip install 'nightprice[pipeline]'")


# The registry's commands


def test_models_lists_versions_with_metrics_and_aliases(registry: Registry) -> None:
    shown, listed = call("models").stdout, answer("models")

    assert [item["version"] for item in listed["versions"]] == [SECOND, FIRST]
    assert listed["aliases"] == {"champion": FIRST}
    assert re.search(rf"{FIRST} +champion +xgboost +0\.7000", shown)
    assert shown.index(SECOND) < shown.index(FIRST)


def test_promote_rollback_and_history_tell_the_same_story(registry: Registry) -> None:
    promoted = answer("promote", f"{NAME}@{SECOND}", "--reason", "a better one")
    back = answer("rollback", "--reason", "complaints")
    told = answer("history")["history"]

    assert (promoted["version"], promoted["previous"], promoted["number"]) == (SECOND, FIRST, 2)
    assert (back["model"], back["number"]) == (f"{NAME}@{FIRST}", 3)
    assert [(record["version"], record["why"]) for record in told] == [
        (FIRST, "complaints"),
        (SECOND, "a better one"),
        (FIRST, "the first"),
    ]
    assert re.search(rf"2 +promote +{SECOND} +{FIRST}", call("history").stdout)


def test_the_newest_version_is_promoted_by_its_word(registry: Registry) -> None:
    assert answer("promote", f"{NAME}@latest")["model"] == f"{NAME}@{SECOND}"


def test_promoting_what_is_in_force_changes_nothing(registry: Registry) -> None:
    result = call("promote", f"{NAME}@{FIRST}")

    assert "already: nothing was changed" in result.stdout
    assert len(registry.history(NAME, "champion")) == 1


def test_another_alias_in_another_registry(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "nightprice-registry").rename(tmp_path / "elsewhere")

    result = call("promote", f"{NAME}@{SECOND}", "--alias", "challenger", "--registry", "elsewhere")

    assert result.exit_code == 0, result.output
    assert f"nightprice history {NAME} --alias challenger --registry elsewhere" in result.stdout
    assert answer("models", "--registry", "elsewhere")["aliases"] == {"challenger": SECOND, "champion": FIRST}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"promote {NAME}@champon", 'Did you mean "champion"?'),
        (f"promote {NAME}", "Write NAME@ALIAS, NAME@VERSION or NAME@latest"),
        ("history listing-prise", 'Did you mean "listing-price"?'),
        ("models --registry gone", "gone"),
        ("rollback", "can't be rolled back"),
    ],
)
def test_what_the_registry_does_not_hold_is_said(line: str, said: str, registry: Registry) -> None:
    result = call(*line.split())

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


# The commands that compute


def test_generate_says_what_it_wrote_and_what_comes_next() -> None:
    result = call("generate", "--rows", 500, "--out", "raw", "--shards", 2)

    assert result.exit_code == 0, result.output
    assert "500 listings in 2 files in raw" in result.stdout
    assert "Next:  nightprice process --source raw --sink dataset" in result.stdout
    assert sum(pq.read_metadata(file).num_rows for file in Path("raw").glob("*.parquet")) == 500


def test_process_prints_the_manifest_or_the_reasons(ray_session: None) -> None:
    call("generate", "--rows", 2_000, "--out", "raw", "--shards", 2, "--bad-rows", 0.1)

    manifest = answer("process", "--source", "raw", "--sink", "dataset")
    shown = call("process", "--source", "raw", "--sink", "dataset")

    assert manifest["rows"]["read"] == 2_000 == manifest["rows"]["accepted"] + manifest["rows"]["rejected"]
    assert f"2,000 rows read, {manifest['rows']['accepted']:,} accepted" in shown.stdout
    assert [reason for reason in manifest["reasons"] if reason not in shown.stdout] == []
    assert shown.stdout.endswith("Next:  nightprice train --data dataset\n")
    assert "Processing raw" in shown.stderr


def test_process_refuses_too_many_rejected_rows(ray_session: None) -> None:
    call("generate", "--rows", 500, "--out", "raw", "--shards", 1, "--bad-rows", 0.5)

    result = call("process", "--source", "raw", "--sink", "dataset", "--max-rejected", 0.01, "--json")

    refused = json.loads(result.stdout)
    assert result.exit_code == refused["exit_code"] == 3
    assert "more than the 1.0% allowed" in refused["error"]


def test_evaluate_and_predict_with_a_model_of_the_registry(registry: Registry, ray_session: None) -> None:
    call("generate", "--rows", 500, "--out", "raw", "--shards", 1)
    processed = answer("process", "--source", "raw", "--sink", "dataset")

    found = answer("evaluate", "--model", f"{NAME}@champion", "--data", "dataset")
    scored = answer("predict", "--model", f"{NAME}@champion", "--source", "raw", "--sink", "scored")

    assert found["model"] == scored["model"] == f"{NAME}@{FIRST}"
    assert found["dataset"]["version"] == processed["version"]
    assert found["rows"] + sum(found["unscorable"].values()) == processed["rows"]["accepted"]
    assert set(found["metrics"]) >= {"accuracy", "macro_f1", "roc_auc", "log_loss", "ordinal_mae", "ece"}
    assert scored["rows"]["read"] == 500


def test_predict_with_a_folder_that_is_in_no_registry(tmp_path: Path, ray_session: None) -> None:
    tiny_artifact(tmp_path / "mine", SECOND)
    call("generate", "--rows", 100, "--out", "raw", "--shards", 1)

    scored = answer("predict", "--model", "mine", "--source", "raw", "--sink", "scored")

    assert scored["model"] == f"{NAME}@{SECOND}"


def test_train_promote_and_a_gate_that_refuses_a_worse_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    monkeypatch.setenv("NIGHTPRICE_XGBOOST__ROUNDS", "40")
    call("generate", "--rows", 3_000, "--out", "raw", "--shards", 1)
    answer("process", "--source", "raw", "--sink", "dataset")

    shown = call("train", "--data", "dataset")
    (good,) = answer("models")["versions"]
    first = answer("promote", f"{NAME}@{good['version']}", "--if-better")
    refused = call("promote", worse_than(good["version"], tmp_path), "--if-better")

    repeated = answer("promote", f"{NAME}@{good['version']}", "--if-better")

    assert shown.exit_code == 0, shown.output
    assert f"nightprice promote {NAME}@{good['version']} --if-better" in shown.stdout
    assert repeated == first
    assert good["metrics"]["accuracy"] > 0.5
    assert "nothing is in force there yet, and it beats the majority" in first["why"]
    assert "rows, measured on" in shown.stdout
    assert refused.exit_code == 3
    assert "not better" in refused.stderr
    assert f"{NAME}@champion stays in force." in refused.stderr
    assert answer("models")["aliases"] == {"champion": good["version"]}


def worse_than(version: str, folder: Path) -> str:
    """Publish a model of random weights that was trained, as it says, on the same rows."""
    registry = Registry("nightprice-registry")
    manifest = registry.manifest(f"{NAME}@{version}")
    same: dict[str, Any] = {key: manifest[key] for key in ("dataset", "split", "created")}
    return f"{NAME}@{registry.publish(tiny_artifact(folder / 'worse', SECOND, **same), NAME)}"
