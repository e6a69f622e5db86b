"""Where a result comes from: code and libraries."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
