import os
from pathlib import Path

import pytest


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and cache, and no settings of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NIGHTPRICE_") or name == "RAY_ADDRESS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIGHTPRICE_CACHE_DIR", str(tmp_path / "cache"))
