"""A command that starts Ray takes Ray's folder away with it, unless it failed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

COMMAND = """
import sys
from pathlib import Path
from pipeline.cli.command import Run
from pipeline.cli.console import screen

with screen(False) as out, Run(out, None).ray("Working"):
    if sys.argv[1] == "fails":
        raise RuntimeError("so")
"""


@pytest.mark.parametrize(("ending", "folders"), [("ends", 0), ("fails", 1)])
def test_a_command_leaves_a_session_folder_only_if_it_failed(ending: str, folders: int) -> None:
    # Sockets below it have names of little more than a hundred characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT)}

        done = subprocess.run([sys.executable, "-c", COMMAND, ending], env=environment, check=False, timeout=300)

        assert done.returncode == folders
        assert len([path for path in Path(folder).rglob("session_2*") if path.is_dir()]) == folders
