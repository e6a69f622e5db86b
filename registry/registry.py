"""The registry: immutable versions of models, and aliases that say which one is in force.

    NAME/versions/VERSION/manifest.json, model.onnx, …    written once, the manifest last: before, the version is not
    there
    NAME/aliases/ALIAS/00000001.json, 00000002.json, …    one record per change, the highest number in force

It is a folder: on this machine, `s3://`, `gs://`, `abfs://`. It needs a store that can create a file only if it is not
there: every one of these can (on this machine, by a hard link).
"""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import platformdirs

from nightprice.errors import closest
from registry import CHAMPION, aliases
from registry.aliases import AliasRecord
from registry.artifact import MANIFEST, Artifact, load_artifact, missing_file, read_manifest
from registry.cache import load_cached
from registry.errors import ConflictError, RegistryError
from registry.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# A version starts with a digit and an alias with a letter: a reference can't be read in two ways.
_VERSION = re.compile(r"[0-9][A-Za-z0-9._-]*")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_REF = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9._-]*)")

# What `versions` tells about each version.
_SUMMARY = ("name", "version", "created", "estimator", "metrics", "dataset")


def is_reference(model: str) -> bool:
    """Whether a model is named by NAME@ALIAS or NAME@VERSION; anything else is a folder."""
    return _REF.fullmatch(model) is not None


class Registry:
    """Versions and aliases at one address. Making one touches nothing; the folder is made by the first `publish`.

    Every method raises RegistryError if the registry is not there or can't be used, UnreachableError (one of those) if
    trying again may help.
    """

    def __init__(self, uri: str, cache_dir: str | Path | None = None) -> None:
        """`cache_dir` keeps the versions that were loaded from a cloud, in a folder "models" (default: the user's
        cache folder).
        """
        self._store = Store(uri)
        self._cache = Path(cache_dir or platformdirs.user_cache_path("nightprice")) / "models"

    @property
    def uri(self) -> str:
        return self._store.uri

    def publish(self, folder: Path, name: str) -> str:
        """Add the model in a folder (`write_artifact`) and return its version.

        Raises ArtifactError if it does not pass the checks of loading, ConflictError if the version is there with other
        files. A publication that broke off left nothing visible, and may be repeated.
        """
        artifact = load_artifact(folder)
        if artifact.name != name:
            raise RegistryError(
                f'{folder} holds the model "{artifact.name}", not "{name}". Publish it under its own name.'
            )
        path = _version_path(name, artifact.version)
        self._store.make()
        contents = {file: (folder / file).read_bytes() for file in artifact.manifest["sha256"]}
        if self._store.read(f"{path}/{MANIFEST}") not in (None, contents[MANIFEST]):
            raise self._exists(artifact.ref, MANIFEST)
        # All publishers in one order: whoever wins the first file that differs is the one who gets to the manifest.
        for file in sorted(contents, key=lambda file: (file == MANIFEST, file)):
            if not self._store.create(f"{path}/{file}", contents[file]):
                raise self._exists(artifact.ref, file)
        return artifact.version

    def names(self) -> list[str]:
        """The models of this registry."""
        return self._store.folders()

    def versions(self, name: str) -> list[dict[str, Any]]:
        """What each version of a model is, newest first: name, version, created, estimator, metrics, dataset.

        Raises RegistryError for a model that is not there.
        """
        with ThreadPoolExecutor(8) as pool:
            manifests = list(pool.map(lambda version: self.manifest(f"{name}@{version}"), self._version_names(name)))
        newest_first = sorted(manifests, key=lambda manifest: (manifest["created"], manifest["version"]), reverse=True)
        return [{key: manifest.get(key) for key in _SUMMARY} for manifest in newest_first]

    def aliases(self, name: str) -> dict[str, AliasRecord]:
        """The record in force of every alias of a model."""
        found = {alias: self.current(name, alias) for alias in self._store.folders(f"{name}/aliases")}
        return {alias: record for alias, record in found.items() if record}

    def manifest(self, ref: str) -> dict[str, Any]:
        """The manifest of `name@alias` or `name@version`. Raises as `resolve`, and ArtifactError."""
        path = _version_path(*self.resolve(ref))
        content = self._store.read(f"{path}/{MANIFEST}")
        if content is None:
            raise missing_file(self._store.where(path), MANIFEST)
        return read_manifest(content, self._store.where(path))

    def resolve(self, ref: str) -> tuple[str, str]:
        """The (name, version) that `name@alias` or `name@version` means now.

        Raises RegistryError, with the closest match, for a model, version or alias that is not there.
        """
        match = _REF.fullmatch(ref)
        if match is None:
            raise RegistryError(
                f'"{ref}" names no model. Write NAME@ALIAS or NAME@VERSION, as in listing-price@{CHAMPION}.'
            )
        name, selector = match.groups()
        if _VERSION.fullmatch(selector):
            self._require_version(name, selector)
            return name, selector
        record = self.current(name, selector)
        if record is None:
            raise self._unknown_alias(name, selector)
        return name, record.version

    def load(self, ref: str, threads: int = 1) -> Artifact:
        """The model of `name@alias`, `name@version` or a local folder, checked and ready to score.

        A version in a cloud is downloaded once and kept in the cache; a local one is used where it lies.
        Raises ArtifactError if it does not pass its checks, RegistryError as `resolve`.
        """
        if not is_reference(ref):
            return self._load_folder(ref, threads)
        path = _version_path(*self.resolve(ref))
        if self._store.local is not None:
            return load_artifact(self._store.local / path, threads)
        return load_cached(self._store, path, self._cache, threads)

    def current(self, name: str, alias: str) -> AliasRecord | None:
        """The record of an alias that is in force, or None if it was never set."""
        return aliases.read_current(self._store, _alias_path(name, alias))

    def history(self, name: str, alias: str) -> list[AliasRecord]:
        """Every change of an alias, newest first. Raises RegistryError if it was never set."""
        records = aliases.read_history(self._store, _alias_path(name, alias))
        if not records:
            raise self._unknown_alias(name, alias)
        return records

    def promote(
        self, name: str, version: str, alias: str, reason: str, who: str | None = None, *, expected: int | None = None
    ) -> AliasRecord:
        """Let an alias name a version, and return the new record; if it does already, the record in force stays and
        is returned.

        The version is loaded first: one that does not pass its checks is not promoted. `version` may be another alias.
        `expected` is the number of the record that the decision rests on (0: there was none).
        Raises ConflictError if the alias changed meanwhile: of two promotions at once, one wins and one gets this.
        """
        _, version = self.resolve(f"{name}@{version}")
        current = self.current(name, alias)
        number = current.number if current else 0
        if expected is not None and number != expected and current:
            raise aliases.conflict(self._store.where(_alias_path(name, alias)), current)
        if current and current.version == version:
            return current
        self.load(f"{name}@{version}")
        path = _alias_path(name, alias)
        return aliases.append(self._store, path, current, version=version, action=aliases.PROMOTE, why=reason, who=who)

    def rollback(self, name: str, alias: str, reason: str, who: str | None = None) -> AliasRecord:
        """Undo the last promotion that is not undone yet, by one more record, which is returned.

        So two rollbacks lead two versions back, and only a promotion leads forward again. The version is not loaded
        first: in an emergency, the way back must not hang on a download.
        Raises RegistryError if nothing stands before the current version, ConflictError as `promote`.
        """
        records = self.history(name, alias)
        target = aliases.rollback_target(records)
        if target is None:
            raise RegistryError(
                f"{name}@{alias} can't go back: {records[0].version} is the first version it named. Promote "
                "another one instead."
            )
        self._require_version(name, target)
        path = _alias_path(name, alias)
        return aliases.append(
            self._store, path, records[0], version=target, action=aliases.ROLLBACK, why=reason, who=who
        )

    def _exists(self, ref: str, file: str) -> ConflictError:
        return ConflictError(
            f"{ref} is in {self.uri} already, with another {file}. A version never changes: train a new one."
        )

    def _load_folder(self, ref: str, threads: int) -> Artifact:
        folder = Path(ref).expanduser()
        if not folder.is_dir():
            raise RegistryError(
                f'"{ref}" is neither a folder nor NAME@ALIAS or NAME@VERSION, as in listing-price@{CHAMPION}.'
            )
        return load_artifact(folder, threads)

    def _version_names(self, name: str) -> list[str]:
        """Versions whose publication was finished. Raises RegistryError if the model has none."""
        folders = self._store.folders(f"{name}/versions")
        with ThreadPoolExecutor(8) as pool:
            finished = list(pool.map(lambda version: self._is_there(name, version), folders))
        names = [version for version, there in zip(folders, finished, strict=True) if there]
        if not names:
            known = self.names()
            if name in known:
                raise RegistryError(
                    f'{self.uri} holds no version of "{name}" that was published to its end. Train it again.'
                )
            listed = f"It holds {', '.join(known)}." if known else "It holds no model yet: train one into it first."
            raise RegistryError(f'{self.uri} holds no model "{name}".{closest(name, known)} {listed}')
        return names

    def _is_there(self, name: str, version: str) -> bool:
        return self._store.read(f"{_version_path(name, version)}/{MANIFEST}") is not None

    def _require_version(self, name: str, version: str) -> None:
        if not self._is_there(name, version):
            known = self._version_names(name)
            raise RegistryError(
                f'"{name}" has no version "{version}".{closest(version, known)} Newest: {", ".join(known[:-6:-1])}.'
            )

    def _unknown_alias(self, name: str, alias: str) -> RegistryError:
        self._version_names(name)
        known = list(self.aliases(name))
        listed = f"It has {', '.join(known)}." if known else "It has none yet: promote a version first."
        return RegistryError(f'"{name}" has no alias "{alias}".{closest(alias, known)} {listed}')


def _version_path(name: str, version: str) -> str:
    _check(_NAME, name, "a model", "a letter or digit")
    _check(_VERSION, version, "a version", "a digit")
    return f"{name}/versions/{version}"


def _alias_path(name: str, alias: str) -> str:
    _check(_NAME, name, "a model", "a letter or digit")
    _check(_ALIAS, alias, "an alias", "a letter")
    return f"{name}/aliases/{alias}"


def _check(pattern: re.Pattern[str], text: str, what: str, first: str) -> None:
    if not pattern.fullmatch(text):
        raise RegistryError(f'"{text}" can\'t name {what}. Start with {first}, then letters, digits, ".", "_" and "-".')
