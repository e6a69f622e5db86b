"""The README's code runs, in the order in which it stands, in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.settings import load_settings
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_steps_run_word_for_word(tmp_path: Path) -> None:
    shell, python = "\n".join(blocks("bash")), "\n".join(blocks("python"))
    assert shell.count("nightprice ") >= 8

    printed = run(["bash", "-euo", "pipefail", "-c", shell], tmp_path)
    rows = run([sys.executable, "-c", python], tmp_path)

    assert "first model" in printed
    assert "'read': 6000" in rows


def test_the_settings_are_valid(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "nightprice.toml").write_text(text)

    settings = load_settings(tmp_path / "nightprice.toml")

    assert settings.bins is not None
    assert list(settings.bins) == tomllib.loads(text)["bins"]


@pytest.mark.parametrize(
    "target",
    sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))),
)
def test_the_make_targets_exist(target: str) -> None:
    assert (
        subprocess.run(["make", "--dry-run", "--silent", target], cwd=ROOT, capture_output=True, check=False).returncode
        == 0
    )


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), link
