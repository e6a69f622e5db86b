"""Model folders as somebody writes them who knows the format: every hash is right."""

import hashlib
import json
from pathlib import Path
from typing import Any

REMOVED = "<removed>"  # a text, so that the name of a test stays the same from run to run


def forge(folder: Path, contents: dict[str, bytes] | None = None, **entries: Any) -> Path:
    """Replace files and entries of the manifest of a model folder, with their hashes, and return the folder."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= entries
    manifest = {name: value for name, value in manifest.items() if value is not REMOVED}
    for name, content in (contents or {}).items():
        (folder / name).write_bytes(content)
        manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
        manifest.get("sizes", {})[name] = len(content)
    seal(folder, manifest)
    return folder


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the hash of itself."""
    hashes = {name: digest for name, digest in manifest["sha256"].items() if name != "manifest.json"}
    digest = hashlib.sha256(json.dumps({**manifest, "sha256": hashes}, sort_keys=True).encode()).hexdigest()
    manifest["sha256"] = {**hashes, "manifest.json": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))
