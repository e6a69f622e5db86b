"""The worked example of docs/bring-your-own-notebook.md, carried out on a copy of the package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "bring-your-own-notebook.md").read_text("utf-8")


def block(beginning: str, language: str = "python") -> str:
    """The one code block of the guide that begins so."""
    (found,) = [
        code for code in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL) if code.startswith(beginning)
    ]
    return str(found)


def replace(file: Path, old: str, new: str) -> None:
    """Replace a top-level table, from its name to the next line that begins with a bracket."""
    text, count = re.subn(
        rf"^{re.escape(old)}.*?^[)}}]\n", lambda _: new, file.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert count == 1
    file.write_text(text, "utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of `transforms` that was changed as the guide says."""
    folder = tmp_path_factory.mktemp("cars")
    package = folder / "transforms"
    shutil.copytree(ROOT / "transforms", package, ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "values.py").open("a", encoding="utf-8") as values:
        values.write("\n\n" + block("_MILEAGE") + "\n\n" + block("_OUTCOMES"))
    replace(package / "contract.py", "FIELDS: tuple", block("FIELDS"))
    replace(package / "amenities.py", "AMENITIES: dict", block("AMENITIES"))
    subprocess.run(["sh", "-ec", block("perl", "sh")], cwd=folder, check=True)
    return folder


def test_cars_are_cleaned_and_encoded(cars: Path) -> None:
    done = run(cars, "-c", block("import pyarrow"))

    assert done.returncode == 0, done.stderr


def test_examples_in_docstrings_hold(cars: Path) -> None:
    done = run(cars, "-m", "doctest", "-v", "transforms/listings/rules.py")

    assert done.returncode == 0, done.stdout
    assert "mileage_km" in done.stdout
    assert "outcome" in done.stdout


def test_the_contract_of_cars_prints_itself(cars: Path) -> None:
    page = run(cars, "-m", "tools.contract_page").stdout

    assert "| `mileage_km` | `mileage`, else `odometer` | float32 |" in page


def test_a_class_is_a_position_between_bins() -> None:
    from transforms.contract import Pricing, price_category

    pricing = Pricing(bins=(0.5, 1.5), labels=("default", "late", "repaid"), minimum=0.0)

    assert [price_category(position, pricing) for position in (0.0, 1.0, 2.0)] == ["default", "late", "repaid"]


def test_files_that_the_guide_names_are_there() -> None:
    named = set(re.findall(r"`((?:transforms|pipeline|benchmarks|tests|docs)/[\w/.-]+)`", GUIDE))

    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]
