"""What is installed, reachable and misconfigured on this machine, each finding with how to fix it."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from nightprice.errors import NightpriceError
from nightprice.machine import process_cpus
from nightprice.ray_cluster import check_answers
from nightprice.ray_environment import COMMON
from nightprice.settings import setting_names
from pipeline.cli.extras import EXTRAS
from pipeline.settings import Settings, load_settings

Status = Literal["ok", "note", "failed"]
GIB = 2**30
# Ray spills and logs there, and stops taking work when the disk is 95 % full.
MIN_FREE = 2 * GIB
MIN_MEMORY = 2 * GIB
FULL_SHARE = 0.95


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    about: str
    status: Status
    """ok; note: something does not work, or only slowly; failed: the main job does not work."""
    found: str
    fix: str = ""
    """What to do about it."""


def examine(settings_file: Path | None = None, registry: str | None = None) -> dict[str, Any]:
    """All findings, and the settings in force with where each came from; "ok" is false if anything failed."""
    findings = [_python(), *_packages()]
    settings: Settings | None = None
    try:
        settings = load_settings(settings_file).override(registry=registry)
    except NightpriceError as error:
        findings.append(Finding("settings", "failed", str(error)))
    findings += list(_ray())
    if settings:
        findings += [*_contract(settings), _folder("cache", settings.cache_dir), _registry(settings)]
    return {
        "ok": all(finding.status != "failed" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "settings": _in_force(settings) if settings else {},
    }


def _in_force(settings: Settings) -> dict[str, dict[str, Any]]:
    values, origins = settings.as_json(), settings.origins()
    return {name: {"value": _value(values, name), "origin": origins[name]} for name in setting_names(Settings)}


def _value(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _python() -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "failed", found, "Use Python 3.11 to 3.13.")
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    """One finding an extra; only that of the pipeline is needed for the main job."""
    yield Finding("nightprice", "ok", _version("nightprice") or "run from its source folder, not installed")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not _is_installed(module)]
        if missing:
            status: Status = "failed" if extra == "pipeline" else "note"
            yield Finding(
                f"extra {extra}", status, f"not installed: {', '.join(missing)}", f"pip install 'nightprice[{extra}]'"
            )
        else:
            yield Finding(
                f"extra {extra}",
                "ok",
                ", ".join(f"{module} {_version(_DISTRIBUTIONS.get(module, module))}" for module in modules),
            )


_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "xgboost": "xgboost-cpu" if sys.platform != "darwin" else "xgboost",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.bigquery_storage": "google-cloud-bigquery-storage",
}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _ray() -> Iterator[Finding]:
    """Where Ray will run, and what would stop it there; nothing is started."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield _attempt("ray", f"cluster at RAY_ADDRESS={address}", lambda: check_answers(address))
    else:
        yield _this_machine()
        yield _folder("ray's temporary files", Path(os.environ.get("RAY_TMPDIR", "/tmp")))
    mode = os.environ.get("RAY_AUTH_MODE")
    if (Path.home() / ".ray" / "auth_token").is_file() and mode is None and address:
        yield Finding(
            "ray's tokens",
            "note",
            f"there is a token, but it is not used: RAY_AUTH_MODE={COMMON['RAY_AUTH_MODE']}",
            "Set RAY_AUTH_MODE=token for a cluster that asks for it, or RAY_AUTH_MODE=disabled.",
        )


def _this_machine() -> Finding:
    cpus, memory = process_cpus(), _memory()
    found = f"will start on this machine: {cpus} CPUs, {memory / GIB:.1f} GiB of memory"
    if memory < MIN_MEMORY:
        return Finding("ray", "note", found, "Ray ends tasks when memory runs out: free some, or join a cluster.")
    return Finding("ray", "ok", found)


def _memory() -> int:
    """Bytes of this machine or, if that is less, of this container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(whole, int(text)) if text.isdigit() else whole


def _folder(about: str, folder: Path) -> Finding:
    """Whether files can be written in a folder that exists or can be made, and whether there is room."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            about,
            "failed",
            f"{folder} can't be written",
            f"Ask for the right to write in {existing}, or name another folder.",
        )
    usage = shutil.disk_usage(existing)
    found = f"{folder}, {usage.free / GIB:.1f} GiB free"
    if usage.free < MIN_FREE or usage.used / usage.total > FULL_SHARE:
        return Finding(about, "note", found, "Free some space: Ray takes no more work when a disk is 95 % full.")
    return Finding(about, "ok", found)


def _contract(settings: Settings) -> Iterator[Finding]:
    """One finding for each thing that is wrong with the contract."""
    from transforms.contract import load_contract

    try:
        contract = load_contract(settings.contract, check=False)
        settings.label(contract)
    except NightpriceError as error:
        yield Finding("contract", "failed", str(error))
        return
    problems = contract.problems()
    for problem in problems:
        yield Finding("contract", "failed", problem, f"Correct {settings.contract}.")
    if not problems:
        found = f"{settings.contract}: {contract.name}, version {contract.version}, {len(contract.fields)} fields"
        yield Finding("contract", "ok", found)


def _registry(settings: Settings) -> Finding:
    from registry.registry import Registry

    uri = settings.registry
    local = urlsplit(uri).scheme in ("", "file")
    if local and not Path(urlsplit(uri).path).exists():
        folder = _folder("registry", Path(urlsplit(uri).path))
        return (
            folder
            if folder.status == "failed"
            else Finding("registry", "ok", f"{uri} does not exist yet; the first training makes it")
        )
    try:
        names = Registry(uri, settings.cache_dir).names()
        return Finding("registry", "ok", f"{uri} holds {', '.join(names) or 'no model yet'}")
    except NightpriceError as error:
        return Finding("registry", "failed", str(error))


def _attempt(about: str, found: str, check: Callable[[], None]) -> Finding:
    try:
        check()
    except NightpriceError as error:
        return Finding(about, "failed", str(error))
    return Finding(about, "ok", found)
