"""The history of an alias says which version answers: a record that nightprice can't have written decides nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from registry.aliases import MOST_RECORD_BYTES
from registry.errors import ConflictError, RegistryError
from registry.registry import Registry
from tests.support.tiny_model import FIRST, NAME, SECOND, tiny_artifact


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With two versions, the first the champion."""
    registry = Registry(str(tmp_path / "registry"), tmp_path / "cache")
    for version in (FIRST, SECOND):
        registry.publish(tiny_artifact(tmp_path / version, version), NAME)
    registry.promote(NAME, FIRST, "champion", "the first")
    return registry


def record_file(registry: Registry, number: int, alias: str = "champion") -> Path:
    return Path(registry.uri) / NAME / "aliases" / alias / f"{number:08d}.json"


def plant(registry: Registry, position: int, alias: str = "champion", **entries: Any) -> Path:
    path = record_file(registry, position, alias)
    path.parent.mkdir(exist_ok=True)
    record = {
        "number": position,
        "version": SECOND,
        "previous": FIRST,
        "when": "2026-05-01T00:00:00+00:00",
        "who": "eve",
        "why": "",
        "action": "promote",
    }
    path.write_text(json.dumps({**record, **entries}))
    return path


def test_a_record_as_nightprice_writes_it_is_in_force(registry: Registry) -> None:
    plant(registry, 2)
    assert registry.resolve(f"{NAME}@champion") == (NAME, SECOND)


@pytest.mark.parametrize(
    "entries",
    [
        {"number": 3},
        {"number": 10**30},
        {"number": "2"},
        {"number": True},
        {"version": "../../x"},
        {"version": "latest"},
        {"version": None},
        {"previous": 7},
        {"when": "yesterday"},
        {"who": ["eve"]},
        {"why": None},
        {"action": "delete"},
    ],
    ids=str,
)
def test_a_record_with_another_entry_is_named(registry: Registry, entries: dict[str, Any]) -> None:
    plant(registry, 2, **entries)
    for act in (
        lambda: registry.resolve(f"{NAME}@champion"),
        lambda: registry.history(NAME, "champion"),
        lambda: registry.promote(NAME, SECOND, "champion", ""),
        lambda: registry.rollback(NAME, "champion", ""),
    ):
        with pytest.raises(RegistryError, match=r"00000002\.json is not an alias record") as error:
            act()
        assert not isinstance(error.value, ConflictError)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff", b"9" * 5_000, b" " * (MOST_RECORD_BYTES + 1)])
def test_a_record_that_is_none_is_named(registry: Registry, content: bytes) -> None:
    record_file(registry, 2).write_bytes(content)
    with pytest.raises(RegistryError, match=r"00000002\.json is not an alias record"):
        registry.resolve(f"{NAME}@champion")


def test_a_record_that_is_a_pipe_is_named(registry: Registry) -> None:
    record_file(registry, 1).unlink()
    os.mkfifo(record_file(registry, 1))
    with pytest.raises(RegistryError, match=r"00000001\.json is not an alias record|has no alias"):
        registry.resolve(f"{NAME}@champion")


def test_a_number_far_ahead_is_named_and_decides_nothing(registry: Registry) -> None:
    plant(registry, 99_999_999)
    for act in (
        lambda: registry.resolve(f"{NAME}@champion"),
        lambda: registry.promote(NAME, SECOND, "champion", ""),
    ):
        with pytest.raises(RegistryError, match=r"has the record 99,999,999, but not 2\. Restore the missing file, or"):
            act()
    assert not record_file(registry, 100_000_000).exists()


def test_after_the_last_number_that_can_be_named_nothing_is_written(registry: Registry) -> None:
    plant(registry, 99_999_999, "other", version=FIRST)
    with pytest.raises(RegistryError, match="the last one that can be named"):
        registry.promote(NAME, SECOND, "other", "")
    assert [path.name for path in record_file(registry, 1, "other").parent.iterdir()] == ["99999999.json"]


@pytest.mark.parametrize("name", ["100000000.json", "2.json", "00000002.json.tmp", "0000000٢.json"])
def test_a_file_of_another_name_is_no_record(registry: Registry, name: str) -> None:
    plant(registry, 2).rename(record_file(registry, 2).with_name(name))
    assert registry.resolve(f"{NAME}@champion") == (NAME, FIRST)
    assert registry.promote(NAME, SECOND, "champion", "").number == 2


def test_the_oldest_records_may_be_tidied_away(registry: Registry) -> None:
    registry.promote(NAME, SECOND, "champion", "")
    record_file(registry, 1).unlink()
    assert registry.resolve(f"{NAME}@champion") == (NAME, SECOND)
    assert registry.promote(NAME, FIRST, "champion", "").number == 3


def test_a_broken_alias_hides_no_other(registry: Registry) -> None:
    plant(registry, 1, "canary", version=7)
    (record_file(registry, 1).parent.parent / "1 2").mkdir()
    (record_file(registry, 1).parent.parent / "1 2" / "x").touch()
    assert {alias: record.version for alias, record in registry.aliases(NAME).items()} == {"champion": FIRST}
    with pytest.raises(RegistryError, match="not an alias record"):
        registry.resolve(f"{NAME}@canary")
