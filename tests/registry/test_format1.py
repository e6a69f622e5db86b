"""Models that were written in format 1 still score and can be promoted, and no file of theirs is touched."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.artifact import load_artifact
from registry.errors import ArtifactError
from registry.format1 import has_unread_trees
from registry.registry import Registry
from tests.support.format1 import WEIGHTS, old_model
from tests.support.tiny_model import (
    FIRST,
    NAME,
    SECOND,
    VOCABULARY,
    Publish,
    golden_rows,
    tiny_artifact,
    tiny_probabilities,
)
from transforms.listings import CONTRACT


def test_it_scores_as_it_did(tmp_path: Path) -> None:
    model = load_artifact(old_model(tmp_path / "old"))
    model.require(CONTRACT)
    np.testing.assert_allclose(model.predict(golden_rows()), tiny_probabilities(golden_rows(), WEIGHTS), atol=1e-6)
    assert (model.label, model.vocabulary) == (CONTRACT.label, VOCABULARY)


def test_its_manifest_reads_as_one_of_today(tmp_path: Path) -> None:
    manifest = load_artifact(old_model(tmp_path / "old")).manifest
    assert manifest["contract"] == {"name": "listing-price", "version": 1, "digest": ""}
    assert manifest["format"] == 1
    assert {"pricing", "labels", "contract_version"}.isdisjoint(manifest)


def test_it_is_published_as_it_is_and_served_beside_new_ones(
    registry: Registry, publish: Publish, tmp_path: Path
) -> None:
    folder = old_model(tmp_path / "old")
    before = (folder / "manifest.json").read_bytes()

    registry.publish(folder, NAME)
    publish(SECOND)
    registry.promote(NAME, FIRST, "champion", "the old one")

    assert registry.load(f"{NAME}@champion").version == FIRST
    assert [version["version"] for version in registry.versions(NAME)] == [SECOND, FIRST]
    assert registry._store.read(f"{NAME}/versions/{FIRST}/manifest.json") == before


def test_a_change_of_the_old_manifest_is_noticed(tmp_path: Path) -> None:
    folder = old_model(tmp_path / "old")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"contract_version": 1', '"contract_version": 2'))
    with pytest.raises(ArtifactError, match=r"manifest\.json has changed since the model was written"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"name": "trip"}, {"key": "price"}, {"fields": CONTRACT.fields[::-1]}]
)
def test_it_is_held_to_name_version_and_features(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"was trained (under|on other features)"):
        load_artifact(old_model(tmp_path / "old")).require(dataclasses.replace(CONTRACT, **change))


def test_only_what_it_had_trees_for_would_explain_itself(tmp_path: Path) -> None:
    assert has_unread_trees(load_artifact(old_model(tmp_path / "old")).manifest)
    assert not has_unread_trees(load_artifact(tiny_artifact(tmp_path / "new")).manifest)


@pytest.mark.parametrize("entries", [{"pricing": None}, {"pricing": {"bins": [1.0]}}])
def test_an_old_manifest_without_a_readable_label_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"Train it again"):
        load_artifact(old_model(tmp_path / "old", **entries))
