"""What is checked in a folder is checked in a bucket, before it is downloaded."""

import json
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from registry.errors import ArtifactError
from registry.registry import Registry
from registry.store import Store
from tests.support.forged import forge
from tests.support.tiny_model import FIRST, NAME, SECOND, tiny_artifact


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    memory = MemoryStore()
    monkeypatch.setattr(Store, "_cloud", lambda *_: memory)
    return memory


@pytest.fixture
def registry(bucket: MemoryStore, tmp_path: Path) -> Registry:
    registry = Registry("s3://bucket/models", tmp_path / "cache")
    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    return registry


def upload(bucket: MemoryStore, folder: Path, version: str) -> None:
    for path in folder.iterdir():
        obstore.put(bucket, f"{NAME}/versions/{version}/{path.name}", path.read_bytes())


def test_a_version_copied_under_another_name_is_refused(
    bucket: MemoryStore, registry: Registry, tmp_path: Path
) -> None:
    upload(bucket, tmp_path / "model", SECOND)
    assert registry.load(f"{NAME}@{FIRST}").version == FIRST
    with pytest.raises(ArtifactError, match=f"holds the model {NAME}@{FIRST}, not {NAME}@{SECOND}"):
        registry.load(f"{NAME}@{SECOND}")
    assert [path.name for path in (tmp_path / "cache").rglob("20*")] == [FIRST]


@pytest.mark.parametrize("name", ["model.onnx", "report.html"])
def test_a_file_larger_than_its_manifest_says_is_not_downloaded(
    bucket: MemoryStore, registry: Registry, tmp_path: Path, name: str
) -> None:
    forge(tmp_path / "model", sizes={name: 10})
    upload(bucket, tmp_path / "model", FIRST)
    with pytest.raises(ArtifactError, match=rf"{name} has [\d,]+ bytes, and at most 10 are expected"):
        registry.load(f"{NAME}@{FIRST}")


def test_a_huge_manifest_is_not_downloaded_and_hides_no_other(
    bucket: MemoryStore, registry: Registry, tmp_path: Path
) -> None:
    obstore.put(bucket, f"{NAME}/versions/{SECOND}/manifest.json", json.dumps("x" * 2**24).encode())
    listed = registry.versions(NAME)
    assert [(item["version"], "at most 16,777,216" in item.get("error", "")) for item in listed] == [
        (FIRST, False),
        (SECOND, True),
    ]
