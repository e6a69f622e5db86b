"""The guide docs/bring-your-own-notebook.md, carried out word for word on a table of made-up cars."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from registry.registry import Registry
from serve_app.model.reloader import ModelReloader
from tests.support.paths import ROOT
from tests.support.serving.client import Client, client_of
from transforms.contract import Contract, load_contract

GUIDE = (ROOT / "docs" / "bring-your-own-notebook.md").read_text("utf-8")
ROWS = 1_500


def block(language: str, beginning: str = "") -> str:
    """The one code block of the guide in a language that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    (code,) = [code for code in blocks if code.startswith(beginning)]
    return str(code)


INIT, DOCTOR, PIPELINE = (block("bash", begin) for begin in ("nightprice init", "export", "nightprice process"))


def cars() -> str:
    """The guide's cars, and more of them: prices follow age, mileage and body."""
    chance, text = Random(1), io.StringIO(newline="")
    writer = csv.writer(text)
    for advert in range(5, ROWS):
        year, body = chance.randint(1998, 2023), chance.choice(("hatchback", "saloon", "estate", "suv"))
        miles = (2024 - year) * chance.randint(3_000, 9_000)
        price = round(38_000 * 0.88 ** (2024 - year) * (1.5 if body == "suv" else 1) * chance.uniform(0.8, 1.2))
        mileage = chance.choice((f"{miles:,} mi", f"{miles * 2} km", "", "low"))
        equipment = json.dumps(chance.sample(("Sat-nav", "Tow hitch", "Heated seats"), chance.randint(0, 3)))
        region = chance.choice((("Kent", ""), ("", "Essex"), ("Surrey", "")))
        model = chance.choice(("Volvo XC60", "VW Golf", "Fiat Panda"))
        writer.writerow((advert, *region, body, model, year, mileage, "", equipment, f"£{price:,}"))
    return block("csv") + text.getvalue()


def run(folder: Path, code: str) -> str:
    """Run shell code of the guide; returns what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTPRICE_")}
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT), "NIGHTPRICE_CACHE_DIR": str(folder / "cache")}
    command = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: the table, the module and its tests."""
    folder = tmp_path_factory.mktemp("cars")
    (folder / "cars.csv").write_text(cars(), "utf-8")
    (folder / "car_price.py").write_text(block("python", '"""Which band'), "utf-8")
    (folder / "test_car_price.py").write_text(block("python", "import pyarrow as pa\nimport pytest"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def contract(folder: Path) -> Contract:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return load_contract("car_price:CONTRACT")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """What the commands print, from the raw file to the scored rows."""
    return run(folder, DOCTOR + PIPELINE)


@pytest.fixture(scope="module")
def client(folder: Path, contract: Contract, printed: str) -> Client:
    """The service of what the commands have promoted."""
    registry = Registry(str(folder / "nightprice-registry"), folder / "cache")
    reloader = ModelReloader(registry, "car-price@champion", contract)
    reloader.poll()
    return client_of(reloader)


def test_init_guesses_what_the_guide_shows(tmp_path: Path) -> None:
    (tmp_path / "cars.csv").write_text(cars(), "utf-8")

    run(tmp_path, INIT)

    module = (tmp_path / "car_price.py").read_text("utf-8")
    assert block("text", "        #") in module
    assert "NIGHTPRICE_CONTRACT=car_price:CONTRACT" in DOCTOR


def test_the_rules_pass_their_tests(folder: Path) -> None:
    printed = run(folder, "python -m pytest -q --doctest-modules car_price.py test_car_price.py")

    assert "7 passed" in printed


def test_what_doctor_says_of_mistakes_is_what_the_guide_says(contract: Contract) -> None:
    def without(name: str, values: Any) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != name}

    unbounded = replace(contract.by_name["year"], low=None)
    wrong = [
        replace(contract, fields=tuple(unbounded if item.name == "year" else item for item in contract.fields)),
        replace(contract, example=without("region", contract.example)),
        replace(contract, breakdown=("regoin",)),
        replace(contract, label_column=""),
        replace(contract, lists=()),
    ]

    assert [problem for contract in wrong for problem in contract.problems()[:1]] == block("text", "year:").splitlines()


def test_doctor_and_the_commands_print_what_the_guide_says(printed: str) -> None:
    (sound,) = re.findall(r"`(ok  contract  [^`]+)`", GUIDE)
    assert sound.split() in [line.split() for line in printed.splitlines()]
    assert f"{ROWS - 1:,} rows read, {ROWS - 3:,} accepted, 2 rejected" in printed
    assert "body:not_allowed" in printed
    assert "accuracy of the majority label" in printed
    assert "the first model" in printed


def test_the_first_http_answer(client: Client, contract: Contract) -> None:
    command = shlex.split(block("sh", "curl").replace("\\\n", ""))

    answer = client.post(command[2].partition(":8000")[2], json.loads(command[-1]))

    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert result["advert"] == 1001
    assert result["price_band"] == max(result["probabilities"], key=result["probabilities"].get)
    assert tuple(result["probabilities"]) == contract.label.labels
    # A nine years older car is cheaper.
    older = client.post("/v1/predict", {**json.loads(command[-1]), "year": 1999}).json()
    assert older["probabilities"]["Low"] > result["probabilities"]["Low"]
    assert client.get("/").status_code == 200


def test_the_files_that_the_guide_names_exist() -> None:
    named = set(re.findall(r"`((?:transforms|examples|deploy|docs)/[\w/.-]+)`", GUIDE))

    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []
