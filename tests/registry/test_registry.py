"""Versions never change, an alias has one history, and whoever loses a race is told."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, ObjectStore, from_url

from nightprice.errors import UsageError
from registry.artifact import MANIFEST, Artifact, load_artifact
from registry.errors import ArtifactError, ConflictError, RegistryError
from registry.registry import Registry
from registry.store import Store
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, VOCABULARY, Publish, golden_rows, tiny_artifact
from transforms.listings import CONTRACT

WRITERS = 6


def named(registry: Registry) -> list[str]:
    return [version["version"] for version in registry.versions(NAME)]


# Versions


def test_a_published_version_is_listed_and_loads(registry: Registry, publish: Publish) -> None:
    assert [publish(FIRST), publish(THIRD, seed=1), publish(SECOND, seed=2)] == [FIRST, THIRD, SECOND]
    assert named(registry) == [THIRD, SECOND, FIRST]
    assert registry.versions(NAME)[0]["metrics"]["accuracy"] == 0.7
    assert registry.names() == [NAME]
    model = registry.load(f"{NAME}@{THIRD}", threads=2)
    assert (model.ref, model.predict(golden_rows()).shape) == (f"{NAME}@{THIRD}", (5, 4))
    assert registry.manifest(f"{NAME}@{THIRD}") == model.manifest


def test_a_folder_is_a_model_too(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_artifact(tmp_path / "mine")
    assert registry.load(str(folder)).folder == folder
    with pytest.raises(RegistryError, match="is neither a folder nor NAME@ALIAS, NAME@VERSION or NAME@latest"):
        registry.load(str(tmp_path / "none"))


def test_a_version_never_changes(registry: Registry, publish: Publish) -> None:
    publish(FIRST, seed=0)
    before = registry.manifest(f"{NAME}@{FIRST}")
    with pytest.raises(ConflictError, match=rf"{NAME}@{FIRST} is in .* already, with another .* train a new one"):
        publish(FIRST, seed=1)
    assert registry.load(f"{NAME}@{FIRST}").manifest == before


def test_a_refused_publication_leaves_no_file(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    publish()
    with pytest.raises(ConflictError):
        registry.publish(tiny_artifact(tmp_path / "other", report="card.html"), NAME)
    assert "card.html" not in registry._store.files(f"{NAME}/versions/{FIRST}")


def test_the_same_publication_may_be_repeated(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    publish(FIRST)
    assert registry.publish(tmp_path / f"trained-{FIRST}-0", NAME) == FIRST
    assert named(registry) == [FIRST]


def test_a_first_publication_that_breaks_off_is_told_from_a_wrong_name(
    registry: Registry, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Store.create
    monkeypatch.setattr(
        Store, "create", lambda store, path, content: not path.endswith(MANIFEST) and create(store, path, content)
    )
    with pytest.raises(ConflictError):
        publish(FIRST)

    with pytest.raises(RegistryError, match=f'no completely published version of "{NAME}"'):
        registry.versions(NAME)


@pytest.mark.parametrize("uploaded", range(4))
def test_a_publication_that_breaks_off_is_invisible_and_can_be_finished(
    registry: Registry, publish: Publish, tmp_path: Path, uploaded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(FIRST)
    create, calls = Store.create, iter(range(10))

    def break_off(store: Store, path: str, content: bytes) -> bool:
        if next(calls) == uploaded:
            raise InterruptedError
        return create(store, path, content)

    monkeypatch.setattr(Store, "create", break_off)
    with pytest.raises(InterruptedError):
        publish(SECOND)
    monkeypatch.undo()

    assert named(registry) == [FIRST]
    with pytest.raises(RegistryError, match=f'no version "{SECOND}"'):
        registry.promote(NAME, SECOND, "champion", "")
    assert registry.publish(tmp_path / f"trained-{SECOND}-0", NAME) == SECOND
    assert registry.load(f"{NAME}@{SECOND}").version == SECOND


def test_a_damaged_model_is_not_published(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_artifact(tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model\.onnx has changed"):
        registry.publish(folder, NAME)


def test_a_model_is_published_under_its_own_name(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match='holds the model "listing-price", not "other"'):
        registry.publish(tiny_artifact(tmp_path / "model"), "other")


@pytest.mark.parametrize(
    ("entry", "problem"), [({"version": "latest"}, "wrong: version"), ({"name": "a/b"}, "wrong: name")]
)
def test_names_fit_into_a_path(registry: Registry, tmp_path: Path, entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        registry.publish(tiny_artifact(tmp_path / "model", **entry), entry.get("name", NAME))


# What is not there


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (
            "listing-prise@champion",
            'holds no model "listing-prise". Did you mean "listing-price"? It holds listing-price.',
        ),
        (
            "listing-price@champoin",
            '"listing-price" has no alias "champoin". Did you mean "champion"? It has champion.',
        ),
        (f"listing-price@{FIRST[:-1]}b", f'has no version "{FIRST[:-1]}b". Did you mean "{FIRST}"? Newest: {FIRST}.'),
    ],
)
def test_what_is_not_there_is_named_with_the_closest_match(
    registry: Registry, publish: Publish, ref: str, message: str
) -> None:
    registry.promote(NAME, publish(), "champion", "first")
    for action in (registry.resolve, registry.load, registry.manifest):
        with pytest.raises(RegistryError) as error:
            action(ref)
        assert message in str(error.value)


def test_a_name_alone_is_not_a_reference(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"Write NAME@ALIAS, NAME@VERSION or NAME@latest, as in"):
        registry.resolve(NAME)


def test_an_alias_that_was_never_set(registry: Registry, publish: Publish) -> None:
    publish()
    assert registry.current(NAME, "champion") is None
    for action in (registry.history, lambda name, alias: registry.rollback(name, alias, "")):
        with pytest.raises(RegistryError, match=r'has no alias "champion"\. It has none yet: promote a version first'):
            action(NAME, "champion")


def test_a_model_in_an_empty_registry(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    if registry._store.local:
        registry._store.make()
    with pytest.raises(RegistryError, match="It is empty: train a model into it first"):
        registry.versions(NAME)


# The newest


def test_latest_is_the_newest_version_by_its_time_then_by_its_name(registry: Registry, tmp_path: Path) -> None:
    for version, created in ((THIRD, "2026-01-01"), (FIRST, "2026-05-01"), (SECOND, "2026-05-01")):
        registry.publish(tiny_artifact(tmp_path / version, version, created=created), NAME)

    assert registry.resolve(f"{NAME}@latest") == (NAME, SECOND)
    assert registry.load(f"{NAME}@latest").version == SECOND
    assert registry.manifest(f"{NAME}@latest")["version"] == SECOND
    assert registry.promote(NAME, "latest", "champion", "the newest").version == SECOND


def test_what_is_not_completely_published_is_not_the_latest(registry: Registry, publish: Publish, address: str) -> None:
    publish(FIRST)
    publish(SECOND)
    obstore.delete(opened(address), f"{NAME}/versions/{SECOND}/manifest.json")
    assert registry.resolve(f"{NAME}@latest") == (NAME, FIRST)


def test_latest_can_not_be_set(registry: Registry, publish: Publish) -> None:
    publish()
    with pytest.raises(RegistryError, match=r'"latest" can\'t be set: it always names the newest version'):
        registry.promote(NAME, FIRST, "latest", "")
    assert registry.aliases(NAME) == {}


# Aliases


def test_a_promotion_is_recorded(registry: Registry, publish: Publish) -> None:
    publish(FIRST)
    publish(SECOND)
    first = registry.promote(NAME, FIRST, "champion", "the first", who="ann")
    second = registry.promote(NAME, SECOND, "champion", "better by 0.01")
    assert (first.number, first.version, first.previous, first.why, first.who) == (1, FIRST, None, "the first", "ann")
    assert (second.number, second.version, second.previous) == (2, SECOND, FIRST)
    assert "@" in second.who
    assert first.when < second.when
    assert registry.resolve(f"{NAME}@champion") == (NAME, SECOND)
    assert registry.load(f"{NAME}@champion").version == SECOND
    assert registry.current(NAME, "champion") == second
    assert registry.history(NAME, "champion") == [second, first]


def test_aliases_do_not_touch_each_other(registry: Registry, publish: Publish) -> None:
    publish(FIRST)
    publish(SECOND)
    registry.promote(NAME, FIRST, "champion", "")
    registry.promote(NAME, SECOND, "challenger", "")
    assert {alias: record.version for alias, record in registry.aliases(NAME).items()} == {
        "champion": FIRST,
        "challenger": SECOND,
    }
    assert registry.promote(NAME, "challenger", "champion", "it won").version == SECOND


def test_promoting_what_is_in_force_changes_nothing(registry: Registry, publish: Publish) -> None:
    first = registry.promote(NAME, publish(), "champion", "")
    assert registry.promote(NAME, FIRST, "champion", "again") == first
    assert registry.history(NAME, "champion") == [first]


OTHER_BINS = CONTRACT.label.override(bins=(50.0, 60.0, 70.0)).as_json()
ANOTHER: dict[str, Any] = {
    "they share no neighbourhood: the one knows Kadıköy": {
        "vocabulary": {**VOCABULARY, "neighbourhood": {"Kadıköy": 1}}
    },
    "they have different bins or labels (Low, Mid, High, Lux at 50, 60, 70, minimum 10; Low": {"label": OTHER_BINS},
    "they have different contracts (listing-price 99 and": {"contract": {**CONTRACT.ref, "version": 99}},
}


@pytest.mark.parametrize("problem", ANOTHER)
def test_what_would_surprise_the_callers_of_an_alias_has_to_be_forced(
    registry: Registry, publish: Publish, tmp_path: Path, problem: str
) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    registry.publish(tiny_artifact(tmp_path / "other", SECOND, **ANOTHER[problem]), NAME)

    with pytest.raises(UsageError) as caught:
        registry.promote(NAME, SECOND, "champion", "")
    assert problem in str(caught.value)
    assert "promote it with --force" in str(caught.value)
    assert registry.resolve(f"{NAME}@champion") == (NAME, FIRST)
    assert registry.promote(NAME, SECOND, "champion", "", force=True).version == SECOND


def test_a_place_more_or_less_is_no_surprise(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    fewer = {**VOCABULARY, "neighbourhood": {"Bronx": 1, "Kadıköy": 2}}
    registry.publish(tiny_artifact(tmp_path / "other", SECOND, vocabulary=fewer), NAME)

    assert registry.promote(NAME, SECOND, "champion", "").version == SECOND


def test_what_can_not_be_loaded_any_more_can_be_replaced(registry: Registry, publish: Publish, address: str) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    files = LocalStore(address) if "://" not in address else from_url(address)
    obstore.put(files, f"{NAME}/versions/{FIRST}/{MANIFEST}", b"{}")

    assert registry.promote(NAME, publish(SECOND), "champion", "").version == SECOND


def test_a_damaged_version_is_not_promoted(registry: Registry, publish: Publish, address: str) -> None:
    publish()
    overwrite(address, f"{NAME}/versions/{FIRST}/model.onnx", b"tampered")
    with pytest.raises(ArtifactError, match=rf"{address}/{NAME}/versions/{FIRST}: model\.onnx has changed"):
        registry.promote(NAME, FIRST, "champion", "")
    assert registry.current(NAME, "champion") is None


def test_an_alias_has_a_name_that_can_not_be_a_version(registry: Registry, publish: Publish) -> None:
    publish()
    with pytest.raises(RegistryError, match=r'"2026" can\'t name an alias\. Start with a letter'):
        registry.promote(NAME, FIRST, "2026", "")


def test_a_decision_on_an_old_record_is_a_conflict(registry: Registry, publish: Publish) -> None:
    publish(FIRST)
    publish(SECOND)
    registry.promote(NAME, FIRST, "champion", "meanwhile", who="bob", expected=0)
    with pytest.raises(ConflictError, match=rf"champion was set to {FIRST} by bob in the meantime \(meanwhile\)"):
        registry.promote(NAME, SECOND, "champion", "", expected=0)
    assert registry.promote(NAME, SECOND, "champion", "", expected=1).number == 2


def test_a_record_that_is_none_is_named(registry: Registry, publish: Publish, address: str) -> None:
    registry.promote(NAME, publish(), "champion", "")
    overwrite(address, f"{NAME}/aliases/champion/00000001.json", b"{}")
    with pytest.raises(RegistryError, match=r"champion/00000001\.json is not an alias record"):
        registry.resolve(f"{NAME}@champion")


# Rollback


def test_two_rollbacks_lead_two_versions_back_and_then_there_is_nothing(registry: Registry, publish: Publish) -> None:
    for version in (FIRST, SECOND, THIRD):
        registry.promote(NAME, publish(version), "champion", "")
    assert [registry.rollback(NAME, "champion", "bad").version for _ in range(2)] == [SECOND, FIRST]
    with pytest.raises(
        RegistryError, match=rf"{NAME}@champion can't be rolled back: .* has named {SECOND}, {THIRD} since"
    ):
        registry.rollback(NAME, "champion", "")
    newest = registry.history(NAME, "champion")[0]
    assert (newest.number, newest.version, newest.previous, newest.action, newest.why) == (
        5,
        FIRST,
        SECOND,
        "rollback",
        "bad",
    )


def test_a_rollback_after_a_promotion_skips_what_was_rolled_back(registry: Registry, publish: Publish) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    registry.promote(NAME, publish(SECOND), "champion", "")
    registry.rollback(NAME, "champion", "SECOND is bad")
    registry.promote(NAME, publish(THIRD), "champion", "")
    assert registry.rollback(NAME, "champion", "THIRD is bad too").version == FIRST


def test_a_rollback_does_not_hang_on_a_version_that_can_not_be_loaded_here(
    registry: Registry, publish: Publish, address: str
) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    registry.promote(NAME, publish(SECOND), "champion", "")
    overwrite(address, f"{NAME}/versions/{FIRST}/model.onnx", b"")
    assert registry.rollback(NAME, "champion", "").version == FIRST


def test_a_rollback_to_a_version_that_was_deleted_is_refused(
    registry: Registry, publish: Publish, address: str
) -> None:
    registry.promote(NAME, publish(FIRST), "champion", "")
    second = registry.promote(NAME, publish(SECOND), "champion", "")
    obstore.delete(opened(address), f"{NAME}/versions/{FIRST}/manifest.json")
    with pytest.raises(RegistryError, match=f'"{NAME}" has no version "{FIRST}"'):
        registry.rollback(NAME, "champion", "")
    assert registry.current(NAME, "champion") == second


# Races


class Meeting(Registry):
    """Waits for the others between reading the alias and writing its record."""

    barrier: Barrier

    def load(self, ref: str, threads: int = 1) -> Artifact:
        model = super().load(ref, threads)
        self.barrier.wait(timeout=60)
        return model


def race(act: Callable[[int], Any]) -> list[Any]:
    def run(writer: int) -> Any:
        try:
            return act(writer)
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def test_of_many_promotions_at_once_one_wins_and_the_others_are_told(
    registry: Registry, publish: Publish, address: str, tmp_path: Path
) -> None:
    versions = [publish(f"{number}{FIRST[1:]}") for number in range(WRITERS)]
    barrier = Barrier(WRITERS)

    def promote(writer: int) -> str:
        mine = Meeting(address, tmp_path / "cache")
        mine.barrier = barrier
        return mine.promote(NAME, versions[writer], "champion", f"by {writer}").version

    results = race(promote)
    won = [result for result in results if isinstance(result, str)]
    assert len(won) == 1
    assert all(f"was set to {won[0]}" in str(result) for result in results if result not in won)
    assert [record.version for record in registry.history(NAME, "champion")] == won


def test_of_many_publications_of_one_version_one_wins_whole(registry: Registry, address: str, tmp_path: Path) -> None:
    folders = [tiny_artifact(tmp_path / f"trained-{seed}", seed=seed) for seed in range(WRITERS)]
    results = race(lambda writer: Registry(address).publish(folders[writer], NAME))
    assert results.count(FIRST) == 1
    assert registry.load(f"{NAME}@{FIRST}").manifest == load_artifact(folders[results.index(FIRST)]).manifest


def overwrite(address: str, path: str, content: bytes) -> None:
    """What nobody should do to a registry."""
    obstore.put(opened(address), path, content)


def opened(address: str) -> ObjectStore:
    return from_url(address) if "://" in address else LocalStore(address)
