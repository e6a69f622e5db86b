"""What the examples in the docstrings of `registry` stand on."""

from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem


@pytest.fixture(autouse=True)
def _example_registry(request: pytest.FixtureRequest) -> None:
    """`registry` holds the versions 1 and 2 of the model "example", 1 is the champion; `model_folder` is version 3."""
    if not isinstance(request.node, DoctestItem) or Path(__file__).parent / "registry" not in request.path.parents:
        return
    from registry.registry import Registry
    from tests.support.tiny_model import tiny_artifact

    folder: Path = request.getfixturevalue("tmp_path")
    options = {"name": "example", "contract": {"name": "example", "version": 1, "digest": ""}}
    registry = Registry(str(folder / "registry"), folder / "cache")
    for number in ("1", "2"):
        model = tiny_artifact(folder / number, number, created=f"2026-01-0{number}", seed=int(number), **options)
        registry.publish(model, "example")
    registry.promote("example", "1", "champion", "the first", who="ann")
    names = request.getfixturevalue("doctest_namespace")
    names |= {
        "registry": registry,
        "model_folder": tiny_artifact(folder / "model", "3", created="2026-01-03", **options),
    }
