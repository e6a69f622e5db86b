"""The registry: immutable versions of models, and aliases that say which one is in force.

    NAME/versions/VERSION/manifest.json, model.onnx, …    written once, the manifest last: without one, the version
                                                          does not exist
    NAME/aliases/ALIAS/00000001.json, 00000002.json, …    one record per change, the highest number in force

It is a folder: on this machine, `s3://`, `gs://`, `abfs://`. The store must be able to create a file only if none of
that name exists: all of these can (on this machine, by a hard link).
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nightprice.defaults import DEFAULT_CACHE_DIR
from nightprice.errors import NightpriceError, closest
from registry import aliases
from registry.aliases import AliasRecord
from registry.artifact import MANIFEST, Artifact, load_artifact, missing_file_error, read_file, read_manifest
from registry.cache import keep_only, load_cached
from registry.errors import ArtifactError, ConflictError, RegistryError, RegistryUsageError, UnreachableError
from registry.files import MOST_MANIFEST_BYTES, read_regular
from registry.manifest import ModelManifest, VersionSummary, parse_time, summary_of, summary_of_broken
from registry.references import LATEST, SYNTAX, ModelRef, alias_path, is_reference, is_version_name, version_path
from registry.replacement import difference
from registry.store import Store

logger = logging.getLogger(__name__)


class Registry:
    """Versions and aliases at one address. Making one touches nothing; the folder is made by the first `publish`.

    Every method raises RegistryError if the registry does not exist or can't be used, UnreachableError (a subclass) if
    trying again may help.

    >>> registry.promote("example", "latest", "champion", "more accurate").version
    '2'
    >>> registry.rollback("example", "champion", "too slow").version
    '1'
    >>> registry.load("example@champion").ref
    'example@1'
    """

    def __init__(self, uri: str, cache_dir: str | Path | None = None) -> None:
        """`cache_dir` keeps the versions that were loaded from a cloud, in a folder "models" (default: the user's
        cache folder).
        """
        self._store = Store(uri)
        self._cache = Path(cache_dir or DEFAULT_CACHE_DIR) / "models"
        self._warned: set[str] = set()

    @property
    def uri(self) -> str:
        return self._store.uri

    def check_writable(self) -> None:
        """Raise RegistryError or UsageError if nothing could be published here: for a look before a long training."""
        self._store.check_writable()

    def publish(self, folder: Path, name: str) -> str:
        """Add the model in a folder (`write_artifact`) and return its version.

        Raises ArtifactError if it does not pass the checks of loading, ConflictError if the version exists with other
        files. An interrupted publication leaves nothing visible, and may be repeated.

        >>> registry.publish(model_folder, "example")
        '3'
        """
        artifact = load_artifact(folder)
        if artifact.name != name:
            raise RegistryUsageError(
                f'{folder} holds the model "{artifact.name}", not "{name}". Publish it under its own name.'
            )
        path = version_path(name, artifact.version)
        self._store.make()
        files = artifact.manifest["sha256"].keys() - {MANIFEST}
        contents = {file: read_file(folder, file, artifact.manifest, str(folder)) for file in files}
        contents[MANIFEST] = read_regular(folder, MANIFEST, MOST_MANIFEST_BYTES)
        if self._store.read(f"{path}/{MANIFEST}", MOST_MANIFEST_BYTES) not in (None, contents[MANIFEST]):
            raise self._exists_error(artifact.ref, MANIFEST)
        # All publishers in one order: whoever wins the first file that differs is the one who gets to the manifest.
        for file in sorted(contents, key=lambda file: (file == MANIFEST, file)):
            if not self._store.create(f"{path}/{file}", contents[file]):
                raise self._exists_error(artifact.ref, file)
        return artifact.version

    def names(self) -> list[str]:
        """The models of this registry.

        >>> registry.names()
        ['example']
        """
        return self._store.folders()

    def versions(self, name: str) -> list[VersionSummary]:
        """Every completely published version of a model, newest first; at the end those that can't be used, which have
        an `error`.

        Raises RegistryError for a model that does not exist.

        >>> [version["version"] for version in registry.versions("example")]
        ['2', '1']
        """
        found = self._manifests(name)
        broken = {version: error for version, error in found.items() if isinstance(error, NightpriceError)}
        return [
            *map(summary_of, _newest_first(found.values())),
            *(summary_of_broken(name, version, str(error)) for version, error in broken.items()),
        ]

    def aliases(self, name: str) -> dict[str, AliasRecord]:
        """The record in force of every alias of a model; one whose record can't be read is left out, with a warning.

        >>> registry.aliases("example")["champion"].version
        '1'
        """
        records: dict[str, AliasRecord] = {}
        for alias in self._store.folders(f"{name}/aliases"):
            try:
                record = self.current(name, alias)
            except UnreachableError:
                raise
            except RegistryError as error:
                self._warn_once(error)
            else:
                records |= {alias: record} if record else {}
        return records

    def manifest(self, ref: str) -> ModelManifest:
        """The manifest of a model reference. Raises as `resolve`, and ArtifactError.

        >>> registry.manifest("example@champion")["estimator"]
        'xgboost'
        """
        name, version = self.resolve(ref)
        manifest = self._read_manifest(name, version)
        if manifest is None:
            raise missing_file_error(self._store.where(version_path(name, version)), MANIFEST)
        return manifest

    def resolve(self, ref: str) -> tuple[str, str]:
        """The (name, version) that NAME@ALIAS, NAME@VERSION or NAME@latest means now.

        "latest" is the newest version that was completely published and can be used, by its time of creation; it reads
        the manifests of all versions. Raises RegistryError, with the closest match, for a model, version or alias that
        does not exist.

        >>> registry.resolve("example@champion"), registry.resolve("example@latest")
        (('example', '1'), ('example', '2'))
        """
        model = ModelRef.parse(ref)
        if model.is_version:
            self._require_version(model.name, model.selector)
            return model.name, model.selector
        if model.is_latest:
            return model.name, self._newest(model.name)["version"]
        record = self.current(model.name, model.selector)
        if record is None:
            raise self._unknown_alias_error(model.name, model.selector)
        return model.name, record.version

    def load(self, ref: str, threads: int = 1) -> Artifact:
        """The model of a reference or a local folder, checked and ready to score.

        A version in a cloud is downloaded once and kept in the cache; a local one is used in place.
        Raises ArtifactError if it does not pass its checks, RegistryError as `resolve`.

        >>> model = registry.load("example@latest")
        >>> model.ref, model.predict(model.golden.features).shape
        ('example@2', (5, 4))
        """
        if not is_reference(ref):
            return self._load_folder(ref, threads)
        name, version = self.resolve(ref)
        path, found = version_path(name, version), f"{name}@{version}"
        if self._store.local is not None:
            return load_artifact(self._store.local / path, threads, ref=found)
        return load_cached(self._store, path, self._cache, threads, found)

    def tidy_cache(self, in_force: Artifact) -> None:
        """Remove the cached versions of a model that are not this one, and that no alias names.

        For a process that follows an alias for long. Raises OSError if the cache can't be written.
        """
        if self._store.local is None:
            named = {record.version for record in self.aliases(in_force.name).values()}
            folder = version_path(in_force.name, in_force.version).rpartition("/")[0]
            keep_only(self._store, {in_force.version, *named}, folder, self._cache)

    def current(self, name: str, alias: str) -> AliasRecord | None:
        """The record of an alias that is in force, or None if it was never set.

        >>> registry.current("example", "champion").why
        'the first'
        """
        return aliases.read_current(self._store, alias_path(name, alias))

    def history(self, name: str, alias: str) -> list[AliasRecord]:
        """Every change of an alias, newest first. Raises RegistryError if it was never set.

        >>> [(record.action, record.version, record.who) for record in registry.history("example", "champion")]
        [('promote', '1', 'ann')]
        """
        records = aliases.read_history(self._store, alias_path(name, alias))
        if not records:
            raise self._unknown_alias_error(name, alias)
        return records

    def check_replacement(self, name: str, version: str, alias: str) -> None:
        """Raise RegistryUsageError if callers of an alias would be surprised by a version: it has another contract,
        other bins or labels, or knows none of the places (or other texts) that the version in force knows.
        """
        current = self.current(name, alias)
        if current is None or current.version == version:
            return
        try:
            before = self.manifest(f"{name}@{current.version}")
        except (ArtifactError, RegistryUsageError):
            return  # deleted or broken: nobody can be using it
        if problem := difference(self.manifest(f"{name}@{version}"), before):
            raise RegistryUsageError(
                f"{name}@{version} can't silently take the place of {current.version} as {alias}: {problem}. If it is "
                "for other data, train it under a model_name of its own; if all callers expect the change, promote it "
                "with --force (in Python: force=True)."
            )

    def promote(
        self,
        name: str,
        version: str,
        alias: str,
        reason: str,
        who: str | None = None,
        *,
        expected: int | None = None,
        force: bool = False,
    ) -> AliasRecord:
        """Let an alias name a version, and return the new record, or the record in force if it names that version.

        The version is loaded first: one that does not pass its checks is not promoted. `version` may be another alias,
        or "latest". `expected` is the number of the record that the decision rests on (0: there was none).
        Without `force`, raises as `check_replacement`.
        Raises ConflictError if the alias changed meanwhile: of two promotions at once, one wins and one gets this.

        >>> record = registry.promote("example", "latest", "champion", "more accurate")
        >>> record.number, record.version, record.previous
        (2, '2', '1')
        """
        if alias == LATEST:
            raise RegistryUsageError(
                f'"{LATEST}" can\'t be set: it always names the newest version of a model. Choose another alias.'
            )
        _, version = self.resolve(f"{name}@{version}")
        current = self.current(name, alias)
        number = current.number if current else 0
        if expected is not None and number != expected and current:
            raise aliases.conflict_error(self._store.where(alias_path(name, alias)), current)
        if current and current.version == version:
            return current
        if not force:
            self.check_replacement(name, version, alias)
        self.load(f"{name}@{version}")
        path = alias_path(name, alias)
        return aliases.append(self._store, path, current, version=version, action=aliases.PROMOTE, why=reason, who=who)

    def rollback(self, name: str, alias: str, reason: str, who: str | None = None) -> AliasRecord:
        """Undo the last promotion that is not undone yet, by one more record, which is returned.

        So two rollbacks lead two versions back, and only a promotion leads forward again. The version is not loaded
        first: in an emergency, the way back must not depend on a download.
        Raises RegistryError if there is no version before the current one, ConflictError as `promote`.

        >>> registry.promote("example", "2", "champion", "more accurate").version
        '2'
        >>> registry.rollback("example", "champion", "too slow").version
        '1'
        """
        records = self.history(name, alias)
        target = aliases.rollback_target(records)
        if target is None:
            raise RegistryUsageError(
                f"{name}@{alias} can't be rolled back: {records[0].version} is the first version it named. Promote "
                f"another one instead{_named_since(records)}."
            )
        self._require_version(name, target)
        path = alias_path(name, alias)
        return aliases.append(
            self._store, path, records[0], version=target, action=aliases.ROLLBACK, why=reason, who=who
        )

    def _exists_error(self, ref: str, file: str) -> ConflictError:
        return ConflictError(
            f"{ref} is in {self.uri} already, with another {file}. A version never changes: train a new one."
        )

    def _load_folder(self, ref: str, threads: int) -> Artifact:
        folder = Path(ref).expanduser()
        if not folder.is_dir():
            raise RegistryUsageError(f'"{ref}" is neither a folder nor {SYNTAX}.')
        return load_artifact(folder, threads)

    def _read_manifest(self, name: str, version: str) -> ModelManifest | None:
        """The manifest of a version; None if it was not completely published. Raises ArtifactError."""
        path = version_path(name, version)
        content = self._store.read(f"{path}/{MANIFEST}", MOST_MANIFEST_BYTES)
        return None if content is None else read_manifest(content, self._store.where(path), f"{name}@{version}")

    def _manifests(self, name: str) -> dict[str, ModelManifest | NightpriceError]:
        """By version: the manifests of all completely published ones, or what is wrong with them.

        Raises RegistryError if there are none.
        """

        def examine(version: str) -> ModelManifest | NightpriceError | None:
            try:
                return self._read_manifest(name, version)
            except UnreachableError:
                raise
            except (ArtifactError, RegistryError) as error:
                return error

        versions = self._version_folders(name)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(examine, versions))
        found = {version: result for version, result in zip(versions, results, strict=True) if result}
        self._require_any(name, list(found))
        return found

    def _newest(self, name: str) -> ModelManifest:
        """The manifest of the newest version that can be used. Raises RegistryError if there are none."""
        found = self._manifests(name)
        broken = [error for error in found.values() if isinstance(error, NightpriceError)]
        usable = _newest_first(found.values())
        if not usable:
            raise broken[-1]
        for error in broken:
            self._warn_once(error)
        return usable[0]

    def _warn_once(self, error: NightpriceError) -> None:
        """A service asks every few seconds."""
        if str(error) not in self._warned:
            self._warned.add(str(error))
            logger.warning("%s", error)

    def _version_folders(self, name: str) -> list[str]:
        return [version for version in self._store.folders(f"{name}/versions") if is_version_name(version)]

    def _version_names(self, name: str) -> list[str]:
        """The completely published versions, by name, whatever they contain. Raises RegistryError if there are none."""
        folders = self._version_folders(name)
        with ThreadPoolExecutor(8) as pool:
            published = list(pool.map(lambda version: self._is_published(name, version), folders))
        names = [version for version, complete in zip(folders, published, strict=True) if complete]
        self._require_any(name, names)
        return names

    def _require_any(self, name: str, versions: Sequence[object]) -> None:
        if versions:
            return
        known = self.names()
        if name in known:
            raise RegistryError(f'{self.uri} has no completely published version of "{name}". Train it again.')
        listed = f"It holds {', '.join(known)}." if known else "It is empty: train a model into it first."
        raise RegistryUsageError(f'{self.uri} holds no model "{name}".{closest(name, known)} {listed}')

    def _is_published(self, name: str, version: str) -> bool:
        """Completely: the manifest is written last."""
        try:
            return self._store.read(f"{version_path(name, version)}/{MANIFEST}", MOST_MANIFEST_BYTES) is not None
        except ArtifactError:
            return True  # whoever loads it says what is wrong

    def _require_version(self, name: str, version: str) -> None:
        if not self._is_published(name, version):
            known = self._version_names(name)
            raise RegistryUsageError(
                f'"{name}" has no version "{version}".{closest(version, known)} Newest: {", ".join(known[:-6:-1])}.'
            )

    def _unknown_alias_error(self, name: str, alias: str) -> RegistryUsageError:
        self._version_names(name)
        known = list(self.aliases(name))
        listed = f"It has {', '.join(known)}." if known else "It has none yet: promote a version first."
        return RegistryUsageError(f'"{name}" has no alias "{alias}".{closest(alias, known)} {listed}')


def _named_since(records: list[AliasRecord]) -> str:
    others = dict.fromkeys(record.version for record in records if record.version != records[0].version)
    return f": it has named {', '.join(others)} since" if others else ""


def _newest_first(found: Iterable[ModelManifest | NightpriceError]) -> list[ModelManifest]:
    """The manifests among them, by their time of creation."""
    manifests = [manifest for manifest in found if not isinstance(manifest, NightpriceError)]
    return sorted(manifests, key=lambda manifest: (parse_time(manifest["created"]), manifest["version"]), reverse=True)
