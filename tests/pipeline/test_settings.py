"""Settings: where they come from, in which order, and what a wrong one says."""

import os
import pickle
from pathlib import Path

import pytest

from nightprice.errors import UsageError
from nightprice.settings import setting_names
from pipeline.settings import Settings, load_settings
from tests.support.paths import ROOT
from tools.settings_tables import settings_table
from transforms.contract import Bands, Label


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NIGHTPRICE_")]:
        monkeypatch.delenv(name)


def test_the_page_of_settings_names_all_of_them() -> None:
    """Update it with `python -m tools.settings_tables pipeline`."""
    assert "\n".join(settings_table(Settings)) in (ROOT / "docs" / "settings.md").read_text()


def label() -> Label:
    """The label under the settings in force."""
    settings = load_settings()
    return settings.label(settings.load_contract())


def test_without_file_and_variables_all_is_default() -> None:
    settings = load_settings()

    assert label() == settings.load_contract().label == Bands((90.0, 180.0, 400.0), ("Low", "Mid", "High", "Lux"), 10.0)
    assert settings.model() == "listing-price"
    assert set(settings.origins().values()) == {"default"}


def test_the_file_of_the_working_directory_counts_by_itself() -> None:
    Path("nightprice.toml").write_text(
        "seed = 3\nbins = [50, 100]\nlabels = ['a', 'b', 'c']\nminimum = 5\n[xgboost]\nmax_depth = 4\n"
    )

    settings = load_settings()

    assert (settings.seed, settings.xgboost.max_depth) == (3, 4)
    assert label() == Bands((50.0, 100.0), ("a", "b", "c"), 5.0)
    assert settings.origins()["xgboost.max_depth"] == "file nightprice.toml"
    assert settings.origins()["gate.metric"] == "default"


def test_a_variable_wins_over_the_file_and_leaves_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("[xgboost]\nmax_depth = 4\nsubsample = 0.5\n")
    monkeypatch.setenv("NIGHTPRICE_SETTINGS", "mine.toml")
    monkeypatch.setenv("NIGHTPRICE_XGBOOST__MAX_DEPTH", "8")

    settings = load_settings()

    assert (settings.xgboost.max_depth, settings.xgboost.subsample) == (8, 0.5)
    assert settings.origins()["xgboost.max_depth"] == "NIGHTPRICE_XGBOOST__MAX_DEPTH"
    assert settings.origins()["xgboost.subsample"] == "file mine.toml"


def test_a_file_that_is_named_wins_over_the_variable_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text("seed = 1")
    Path("b.toml").write_text("seed = 2")
    monkeypatch.setenv("NIGHTPRICE_SETTINGS", "a.toml")

    assert load_settings(Path("b.toml")).seed == 2
    assert load_settings().seed == 1


@pytest.mark.parametrize("text", ["20,30,40", "[20, 30, 40]", " 20, 30 ,40 "])
def test_a_variable_holds_a_list_with_or_without_brackets(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_BINS", text)
    monkeypatch.setenv("NIGHTPRICE_LABELS", '["a", b, c, d]')

    assert label() == Bands((20.0, 30.0, 40.0), ("a", "b", "c", "d"), 10.0)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SEED", "")

    assert load_settings().origins()["seed"] == "default"


def test_the_command_line_wins_where_it_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SEED", "1")

    settings = load_settings().override(seed=2, registry=None)

    assert settings.seed == 2
    assert settings.origins()["seed"] == "command line"
    assert settings.registry == Settings().registry


def test_settings_travel_to_workers_with_their_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SEED", "1")

    travelled = pickle.loads(pickle.dumps(load_settings()))

    assert travelled == load_settings()
    assert travelled.origins()["seed"] == "NIGHTPRICE_SEED"


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("sed = 1", ['"sed"', 'Did you mean "seed"?']),
        ("[xgboost]\nmax_dept = 1", ['"xgboost.max_dept"', 'Did you mean "xgboost.max_depth"?']),
        ("[xgbost]\nmax_depth = 1", ['"xgbost"', 'Did you mean "xgboost"?']),
        ("seed = 'a'", ["seed can't be 'a'", "integer"]),
        ("max_rejected = 2", ["max_rejected can't be 2", "less than or equal to 1"]),
        ("xgboost = 1", ["xgboost can't be 1"]),
        ("[gate]\nmetric = 'acuracy'", ["gate.metric can't be 'acuracy'", "one of accuracy, macro_f1"]),
        ("bins = [1, 'x', 3]", ["bins can't be 'x'", "number"]),
        ("seed = ", ["mine.toml is not valid TOML"]),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(content: str, parts: list[str]) -> None:
    Path("mine.toml").write_text(content)

    with pytest.raises(UsageError) as caught:
        load_settings(Path("mine.toml"))

    message = str(caught.value)
    assert message.count("\n") == 0
    assert [part for part in [*parts, "mine.toml"] if part not in message] == []


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        (
            "NIGHTPRICE_SED",
            "1",
            ["There is no setting for the variable NIGHTPRICE_SED", 'Did you mean "NIGHTPRICE_SEED"?'],
        ),
        ("NIGHTPRICE_XGBOOST__MAX_DEPT", "1", ['Did you mean "NIGHTPRICE_XGBOOST__MAX_DEPTH"?']),
        ("NIGHTPRICE_SEED", "1.5", ["NIGHTPRICE_SEED: seed can't be '1.5'"]),
        ("NIGHTPRICE_XGBOOST", "deep", ["NIGHTPRICE_XGBOOST__ROUNDS=…"]),
        ("NIGHTPRICE_SETTINGS", "gone.toml", ["NIGHTPRICE_SETTINGS names gone.toml", "no such file"]),
    ],
)
def test_a_wrong_variable_is_one_clear_sentence(
    name: str, value: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(UsageError) as caught:
        load_settings()

    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("bins = [30, 20, 40]", "must ascend"),
        ("bins = [20, 30]", "2 bins need 3 different labels"),
        ("labels = ['a', 'a', 'b', 'c']", "different labels"),
        ("minimum = 100", "must ascend"),
    ],
)
def test_a_label_that_does_not_fit_the_contract_names_its_origin(content: str, problem: str) -> None:
    Path("nightprice.toml").write_text(content)

    with pytest.raises(UsageError, match=rf"^file nightprice\.toml: .*{problem}"):
        label()


MINE = """
from dataclasses import replace
from transforms.listings import CONTRACT
{name} = replace(CONTRACT, name="mine", target="{target}")
"""


def test_a_contract_of_ones_own_is_found_in_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("contract_of_mine.py").write_text(MINE.format(name="CONTRACT", target="price"))
    monkeypatch.setenv("NIGHTPRICE_CONTRACT", "contract_of_mine:CONTRACT")

    assert load_settings().load_contract().name == load_settings().model() == "mine"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("transforms.listings:CONTRAKT", "can't be loaded"),
        ("no_such_module:CONTRACT", "can't be loaded"),
        ("transforms.listings:ROOM_TYPES", "is a tuple"),
        ("broken_contract:BROKEN", 'The target "prize" is not a field'),
    ],
)
def test_a_contract_that_can_not_be_used_is_one_sentence(reference: str, message: str) -> None:
    Path("broken_contract.py").write_text(MINE.format(name="BROKEN", target="prize"))

    with pytest.raises(UsageError, match=message):
        Settings(contract=reference).load_contract()


def test_every_setting_says_what_it_is() -> None:
    for name in setting_names(Settings):
        model: type = Settings
        *sections, last = name.split(".")
        for section in sections:
            model = model.model_fields[section].annotation  # type: ignore[attr-defined]
        assert model.model_fields[last].description, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["a=" + "[" * 5_000, "x = " + "{a=" * 5_000, "[xgboost]\nmax_depth = " + "[" * 5_000])
def test_a_file_of_brackets_is_no_settings(text: str) -> None:
    Path("nightprice.toml").write_text(text)
    with pytest.raises(UsageError, match=r"nightprice\.toml has brackets within brackets without end"):
        load_settings()


def test_nor_is_a_variable_of_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_XGBOOST", '{"max_depth": ' + "[" * 50_000)
    with pytest.raises(UsageError, match=r"brackets within brackets without end|can't be read"):
        load_settings()
