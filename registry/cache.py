"""Model versions on this machine, copied from a registry in a cloud: each once, whole or not at all."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from registry.artifact import MANIFEST, Artifact, load_artifact, missing_file_error, most_bytes, read_manifest
from registry.errors import ArtifactError
from registry.files import MOST_MANIFEST_BYTES
from registry.manifest import ModelManifest
from registry.store import Store

logger = logging.getLogger(__name__)


def load_cached(store: Store, path: str, cache: Path, threads: int, ref: str) -> Artifact:
    """The version in folder `path` of a registry, from the cache if it has an unchanged copy, else downloaded.

    `ref` is the NAME@VERSION that it must be.

    Several processes may do so at once: each downloads into its own folder, and the first to finish renames it.
    Raises ArtifactError as `load_artifact` does.
    """
    where = store.where(path)
    content = store.read(f"{path}/{MANIFEST}", MOST_MANIFEST_BYTES)
    if content is None:
        raise missing_file_error(where, MANIFEST)
    manifest = read_manifest(content, where, ref)
    target = _place(store, cache) / path
    cached = _load_unchanged(target, manifest, threads)
    if cached is not None:
        return cached
    try:
        return _download(store, path, manifest, target, threads)
    except OSError as error:
        raise ArtifactError(
            f"The model cache {target.parent} can't be written ({error.strerror}). Check its rights and the space "
            "left, or set another cache."
        ) from error


def keep_only(store: Store, versions: Collection[str], folder: str, cache: Path) -> None:
    """Remove from the cache all copies of a folder of versions but these. Other processes may do so at once."""
    for copy in sorted((_place(store, cache) / folder).glob("[!.]*")):
        if copy.name not in versions:
            _discard(copy)


def _place(store: Store, cache: Path) -> Path:
    """Two registries may hold versions of the same name."""
    return cache / hashlib.sha256(store.uri.encode()).hexdigest()[:16]


def _load_unchanged(target: Path, manifest: ModelManifest, threads: int) -> Artifact | None:
    """The version in the cache, or None if there is none; a damaged one is removed."""
    if not target.exists():
        return None
    try:
        artifact = load_artifact(target, threads)
        if artifact.manifest == manifest:
            return artifact
        logger.warning("%s differs from the registry's model. Downloading it again.", target)
    except ArtifactError as error:
        logger.warning("%s Downloading it again.", error)
    _discard(target)
    return None


def _download(store: Store, path: str, manifest: ModelManifest, target: Path, threads: int) -> Artifact:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as temporary:
        folder = Path(temporary) / target.name
        folder.mkdir()
        for name in manifest["sha256"]:
            content = store.read(f"{path}/{name}", most_bytes(manifest, name))
            if content is None:
                raise missing_file_error(store.where(path), name)
            (folder / name).write_bytes(content)
        artifact = load_artifact(folder, threads, store.where(path))
        _rename(folder, target)
    return replace(artifact, folder=target)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        # Another loader was faster, and its copy is the same. Anything else is an error.
        if not (target / MANIFEST).is_file():
            raise


def _discard(target: Path) -> None:
    """Delete a version; it is renamed first, so that no other loader finds a half-deleted folder."""
    trash = tempfile.mkdtemp(prefix=".discard-", dir=target.parent)
    try:
        os.replace(target, Path(trash) / target.name)
    except FileNotFoundError:
        logger.debug("%s was discarded by another loader.", target)
    shutil.rmtree(trash)
