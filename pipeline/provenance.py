"""Where a result comes from: code, libraries, source files."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nightprice.address import without_password
from pipeline.io import files
from pipeline.io.stores import scheme_of

LIBRARIES = ("ray", "pyarrow", "numpy", "xgboost-cpu", "xgboost", "scikit-learn", "onnxruntime", "onnx")


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def code_version() -> str:
    """The version of this code: the package's, with the commit where it runs from a checkout."""
    root = Path(__file__).resolve().parent.parent
    package = _package_version(root)
    if not (root / ".git").exists():
        return package
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{package}+{described.stdout.strip()}" if described.returncode == 0 else package


def _package_version(root: Path) -> str:
    try:
        return version("nightprice")
    except PackageNotFoundError:
        # A Ray job runs from its working directory, with nothing installed.
        import tomllib

        return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def describe_sources(uri: str) -> list[dict[str, Any]]:
    """What a source consists of: files with size and modification time, or the address without its password."""
    if scheme_of(uri) in ("http", "https"):
        from pipeline.io import https

        return [https.describe(uri)]
    if scheme_of(uri) not in files.SCHEMES:
        return [{"path": without_password(uri)}]
    _, found = files.listing(uri)
    return [
        {"path": item.path, "size": item.size, "modified": item.mtime.isoformat() if item.mtime else None}
        for item in found
    ]
