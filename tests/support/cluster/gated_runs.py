"""Runs through `gated.py`: half of their tasks wait at a gate until a test opens it."""

import json
from pathlib import Path

import pyarrow.parquet as pq

# Of the input: each is a task.
SHARDS = 24


def folder_of_gate(folder: Path, half: int) -> Path:
    """A gate for `gated.py`: files from number `half` on wait there."""
    (folder / "waiting").mkdir(parents=True)
    (folder / "half").write_text(str(half))
    return folder


def waiting_at(sink: Path, gate: Path) -> str | None:
    """When half of the files are written and tasks wait at the gate: the address of a node with one of them."""
    waiting = [path.name for path in (gate / "waiting").iterdir()]
    written = len(list(sink.glob("versions/*/accepted/*.parquet")))
    return waiting[0].partition("@")[2] if written >= SHARDS // 2 and len(waiting) >= 2 else None


def ids(rows: Path) -> list[int]:
    return sorted(int(value) for value in pq.read_table(rows, columns=["id"])["id"].to_pylist())


def live(sink: Path) -> Path:
    """The folder of the version that the manifest names."""
    version: str = json.loads((sink / "manifest.json").read_text())["version"]
    return sink / "versions" / version
