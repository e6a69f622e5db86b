"""A version in a cloud is fetched once, whole, and never trusted unseen."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from registry.artifact import load_artifact
from registry.errors import ArtifactError
from registry.registry import Registry
from tests.support.s3_server import Bucket
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, golden_rows, tiny_artifact

REF = f"{NAME}@{FIRST}"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def registry(s3: Bucket, cache: Path, tmp_path: Path) -> Registry:
    registry = Registry(s3.uri, cache)
    registry.publish(tiny_artifact(tmp_path / "trained"), NAME)
    return registry


def files(cache: Path) -> dict[str, int]:
    """Every file with its inode, which changes when it is written anew."""
    return {path.relative_to(cache).as_posix(): path.stat().st_ino for path in cache.rglob("*") if path.is_file()}


def test_a_version_is_downloaded_once(registry: Registry, cache: Path) -> None:
    first = registry.load(REF)
    before = files(cache)
    second = registry.load(REF)
    assert len(before) == 4
    assert files(cache) == before
    assert first.folder == second.folder
    assert first.folder.is_relative_to(cache)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink])
@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_damaged_copy_is_fetched_again(
    registry: Registry, damage: object, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = registry.load(REF)
    assert callable(damage)
    damage(model.folder / name)
    assert (registry.load(REF).predict(golden_rows()) == model.predict(golden_rows())).all()
    assert "Downloading it again" in caplog.text


def test_two_registries_do_not_mix_their_versions(registry: Registry, s3: Bucket, cache: Path, tmp_path: Path) -> None:
    other = Registry(f"{s3.uri}/other", cache)
    other.publish(tiny_artifact(tmp_path / "else", seed=1), NAME)
    before = registry.load(REF).predict(golden_rows())
    assert (other.load(REF).predict(golden_rows()) != before).any()
    assert (registry.load(REF).predict(golden_rows()) == before).all()
    assert other.load(REF).folder != registry.load(REF).folder


def test_a_registry_that_was_made_anew_is_not_served_from_the_old_copy(
    registry: Registry, s3: Bucket, tmp_path: Path
) -> None:
    registry.load(REF)
    store = from_url(s3.uri)
    obstore.delete(store, [item["path"] for item in obstore.list(store).collect()])
    registry.publish(tiny_artifact(tmp_path / "anew", seed=1), NAME)
    assert registry.load(REF).manifest == load_artifact(tmp_path / "anew").manifest


def test_only_the_version_in_force_and_what_aliases_name_stays(
    registry: Registry, s3: Bucket, cache: Path, tmp_path: Path
) -> None:
    for seed, version in enumerate((SECOND, THIRD), 1):
        registry.publish(tiny_artifact(tmp_path / version, version, seed=seed), NAME)
    other = Registry(f"{s3.uri}/other", cache)
    other.publish(tiny_artifact(tmp_path / "else"), NAME)
    registry.promote(NAME, SECOND, "challenger", "test")
    elsewhere = other.load(REF)
    loaded = [registry.load(f"{NAME}@{version}") for version in (FIRST, SECOND, THIRD)]

    registry.tidy_cache(loaded[2])

    assert sorted(path.name for path in loaded[0].folder.parent.iterdir()) == [SECOND, THIRD]
    assert elsewhere.folder.is_dir()
    assert registry.load(REF).ref == REF


def test_many_loaders_at_once_share_one_copy(registry: Registry, s3: Bucket, cache: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda _: Registry(s3.uri, cache).load(REF), range(6)))
    assert {model.folder for model in models} == {models[0].folder}
    assert len(files(cache)) == 4
    assert [path.name for path in models[0].folder.parent.iterdir()] == [FIRST]


def test_a_tampered_version_is_refused_and_not_kept(registry: Registry, s3: Bucket, cache: Path) -> None:
    obstore.put(from_url(s3.uri), f"{NAME}/versions/{FIRST}/model.onnx", b"tampered")
    with pytest.raises(ArtifactError, match=rf"{s3.uri}/{NAME}/versions/{FIRST}: model\.onnx has changed"):
        registry.load(REF)
    assert files(cache) == {}


def test_a_missing_file_is_named_by_its_address(registry: Registry, s3: Bucket) -> None:
    obstore.delete(from_url(s3.uri), f"{NAME}/versions/{FIRST}/golden.json")
    with pytest.raises(ArtifactError, match=rf"{s3.uri}/{NAME}/versions/{FIRST}: golden\.json is missing"):
        registry.load(REF)


def test_a_cache_that_can_not_be_written_is_said(registry: Registry, s3: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ArtifactError, match=r"The model cache .* can't be written \(Not a directory\)\. Check its rights"
    ):
        Registry(s3.uri, tmp_path / "file").load(REF)
