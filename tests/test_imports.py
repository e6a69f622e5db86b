"""The layout is the architecture: what each package may import."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from tests.support.training_libraries import TRAINING

FORBIDDEN = {
    # At import; its functions may.
    "nightprice": {
        "ray",
        "pandas",
        "fastapi",
        "transforms",
        "pipeline",
        "registry",
        "serve_app",
        "examples",
        *TRAINING,
    },
    "transforms": {
        "ray",
        "pandas",
        "sklearn",
        "fastapi",
        "pydantic",
        "pipeline",
        "registry",
        "serve_app",
        "examples",
        *TRAINING,
    },
    "registry": {"ray", "fastapi", "pipeline", "serve_app", "examples", *TRAINING},
    # But for the command line, which starts the service: see ENTRANCE.
    "pipeline": {"serve_app", "examples"},
    "serve_app": {"pipeline", "examples", *TRAINING},
    "examples": {"ray", "pandas", "pipeline", "registry", "serve_app", *TRAINING},
}
ENTRANCE = ("pipeline/cli/commands.py", "serve_app")
# numpy and pyarrow, besides the shared errors, Python's own library and the package itself.
TRANSFORMS_MAY = {"nightprice", "numpy", "pyarrow", "transforms", *sys.stdlib_module_names}


def imported_names(package: str) -> Iterator[tuple[str, str]]:
    """Every module and name that a package's files import, written out: ("pipeline/x.py", "registry.store.Store")."""
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body if package == "nightprice" else ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
                module = ".".join((*parts, *filter(None, [node.module])))
                yield from ((str(path.relative_to(ROOT)), f"{module}.{alias.name}") for alias in node.names)


def imports(package: str) -> Iterator[tuple[str, str]]:
    """The top-level packages that a package's files import."""
    yield from ((path, name.partition(".")[0]) for path, name in imported_names(package))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_forbidden_import(package: str) -> None:
    assert [
        (path, name) for path, name in imports(package) if name in FORBIDDEN[package] and (path, name) != ENTRANCE
    ] == []


def test_transforms_stand_on_numpy_and_arrow_alone() -> None:
    assert {name for _, name in imports("transforms")} <= TRANSFORMS_MAY
    assert list(imports("transforms"))


def test_tests_share_helpers_of_support_alone() -> None:
    """No test imports another test, or a conftest: whatever two of them need is in tests/support."""
    shared = [(path, name) for path, name in imported_names("tests") if name.split(".")[0] == "tests"]

    assert shared
    assert [(path, name) for path, name in shared if not name.startswith("tests.support")] == []
    assert list((ROOT / "tests/support").rglob("test_*.py")) == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("transforms.clean", "ray"), ("registry.registry", "ray"), ("pipeline.cli.commands", "ray")],
)
def test_importing_does_not_drag_in(module: str, unwanted: str) -> None:
    """Not even through others: `nightprice --help` must not wait for Ray."""
    code = f"import {module}, sys; sys.exit({unwanted!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
