"""`nightprice` is the one public import: typed, complete, and without an order of imports to keep."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nightprice
from tests.support.paths import ROOT
from tests.support.raw_listings import write_shards

PACKAGES = ("nightprice", "transforms", "pipeline", "registry", "serve_app")


@pytest.mark.parametrize("name", nightprice.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(nightprice, name) is not None
    assert name in dir(nightprice)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(nightprice.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        (alias.asname or alias.name): f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert typed == nightprice._LOCATIONS
    assert typed.keys() <= set(nightprice.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'proces'"):
        nightprice.proces  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (Path(str(importlib.import_module(package).__file__)).parent / "py.typed").is_file()
    assert f'{package} = ["py.typed"' in (ROOT / "pyproject.toml").read_text()


def python(code: str, *arguments: object, **variables: str) -> str:
    """What a fresh interpreter prints, in which nothing of Ray is set."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**unset, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_imports_no_library() -> None:
    code = "import sys, nightprice; print({'ray', 'pyarrow', 'numpy', 'pydantic', 'pandas'} & sys.modules.keys())"

    assert python(code).strip() == "set()"


def test_a_function_of_the_library_starts_ray_by_itself(tmp_path: Path) -> None:
    raw = write_shards(tmp_path / "raw", shards=1, rows=20)
    code = """
import sys
from nightprice import Settings, process
import ray
manifest = process(sys.argv[1], sys.argv[2], Settings())
from ray.data import DataContext
import os
print(manifest["rows"]["read"], os.environ["RAY_AUTH_MODE"], DataContext.get_current().raise_original_map_exception)
"""

    assert python(code, raw, tmp_path / "dataset").split() == ["20", "disabled", "True"]
