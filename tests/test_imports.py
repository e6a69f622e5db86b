"""The layout is the architecture: what each package may import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = {"sklearn", "xgboost", "onnx", "onnxmltools", "skl2onnx", "pandas"}
FORBIDDEN = {
    "nightprice": {"ray", "pandas", "fastapi", "transforms", "pipeline", "registry", "serve_app", *TRAINING},
    "transforms": {"ray", "pandas", "sklearn", "fastapi", "pydantic", "pipeline", "registry", "serve_app", *TRAINING},
    "registry": {"ray", "fastapi", "pipeline", "serve_app", *TRAINING},
    # But for the command line, which starts the service: see ENTRANCE.
    "pipeline": {"serve_app"},
    "serve_app": {"pipeline", *TRAINING},
}
ENTRANCE = ("pipeline/cli/commands.py", "serve_app")
# numpy and pyarrow, besides the shared errors, Python's own library and the package itself.
TRANSFORMS_MAY = {"nightprice", "numpy", "pyarrow", "transforms", *sys.stdlib_module_names}


def imports(package: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield str(path.relative_to(ROOT)), node.module.partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_forbidden_import(package: str) -> None:
    assert [
        (path, name) for path, name in imports(package) if name in FORBIDDEN[package] and (path, name) != ENTRANCE
    ] == []


def test_transforms_stand_on_numpy_and_arrow_alone() -> None:
    assert {name for _, name in imports("transforms")} <= TRANSFORMS_MAY
    assert list(imports("transforms"))


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("transforms.clean", "ray"), ("registry.registry", "ray"), ("pipeline.cli.commands", "ray")],
)
def test_importing_does_not_drag_in(module: str, unwanted: str) -> None:
    """Not even through others: `nightprice --help` must not wait for Ray."""
    code = f"import {module}, sys; sys.exit({unwanted!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
