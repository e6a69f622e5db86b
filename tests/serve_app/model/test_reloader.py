"""A replica follows its alias: what is promoted answers, what is broken changes nothing."""

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from transforms.listings.example import EXAMPLE

from registry.errors import UnreachableError
from registry.registry import Registry
from serve_app.errors import RequestError
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import Follower
from tests.support.serving.metrics import CountingMetrics
from tests.support.serving.models import registry_with
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, tiny_artifact

CHAMPION = f"{NAME}@champion"


def following(registry: Registry, reference: str = CHAMPION, **options: Any) -> tuple[Follower, CountingMetrics]:
    metrics = CountingMetrics()
    follower = Follower(registry, reference, metrics=metrics, **options)
    follower.poll()
    return follower, metrics


def last_swap(follower: Follower) -> dict[str, Any]:
    swap: dict[str, Any] = follower.status()["last_swap"]
    return swap


def test_a_promotion_and_a_rollback_are_followed(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, metrics = following(registry)
    in_hand = follower.predictor
    first = in_hand.predict(EXAMPLE)
    assert first["model"] == f"{NAME}@{FIRST}"

    registry.promote(NAME, SECOND, "champion", "better")
    follower.poll()

    second = follower.predictor.predict(EXAMPLE)
    assert second["model"] == f"{NAME}@{SECOND}"
    assert second["probabilities"] != first["probabilities"]
    assert (last_swap(follower)["version"], last_swap(follower)["previous"], last_swap(follower)["result"]) == (
        SECOND,
        FIRST,
        "done",
    )
    assert in_hand.predict(EXAMPLE) == first, "a request in flight ends on the model it began with"

    registry.rollback(NAME, "champion", "worse")
    follower.poll()

    assert follower.predictor.predict(EXAMPLE) == first
    assert metrics.swaps == {"done": 3}
    assert metrics.models == [f"{NAME}@{FIRST}", f"{NAME}@{SECOND}", f"{NAME}@{FIRST}"]


def test_nothing_is_loaded_while_nothing_changes(tmp_path: Path) -> None:
    follower, metrics = following(registry_with(tmp_path, [FIRST]))
    held, since = follower.predictor, follower.status()["since"]

    follower.poll()

    assert follower.predictor is held
    assert follower.status()["since"] == since
    assert metrics.swaps == {"done": 1}


@pytest.mark.parametrize("damage", ["corrupt", "missing", "format"])
def test_a_version_that_cannot_be_used_changes_nothing(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    folder = tmp_path / "registry" / NAME / "versions" / SECOND
    if damage == "corrupt":
        (folder / "model.onnx").write_bytes(b"no model")
    elif damage == "missing":
        (folder / "model.onnx").unlink()
    else:
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))

    with caplog.at_level(logging.INFO):
        follower.poll()

    assert follower.predictor.predict(EXAMPLE)["model"] == f"{NAME}@{FIRST}"
    swap = last_swap(follower)
    assert (swap["version"], swap["previous"], swap["result"]) == (SECOND, FIRST, "failed")
    assert SECOND in swap["error"]
    assert metrics.swaps == {"done": 1, "failed": 1}
    assert f"{FIRST} stays in force" in caplog.text


def test_a_failed_version_is_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    model = tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx"
    kept = model.read_bytes()
    model.unlink()

    tries = []
    for _ in range(10):
        before = metrics.swaps["failed"]
        follower.poll()
        tries.append(metrics.swaps["failed"] - before)
    assert tries == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0]

    model.write_bytes(kept)
    for _ in range(6):
        follower.poll()
    assert follower.predictor.ref == f"{NAME}@{SECOND}"


def test_a_later_promotion_does_not_wait_for_a_failed_one(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND, THIRD])
    follower, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    for _ in range(4):
        follower.poll()

    registry.promote(NAME, THIRD, "champion", "mended")
    follower.poll()

    assert follower.predictor.ref == f"{NAME}@{THIRD}"


def test_a_rollback_from_a_failed_version_is_no_swap(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, _ = following(registry)
    held, before = follower.predictor, last_swap(follower)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    follower.poll()

    assert last_swap(follower)["result"] == "failed"

    registry.rollback(NAME, "champion", "broken")
    follower.poll()

    assert follower.predictor is held
    # Nobody should go back once more.
    assert last_swap(follower) == before


def test_while_the_registry_is_away_the_model_goes_on(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, metrics = following(registry)
    (tmp_path / "registry").rename(tmp_path / "away")

    follower.poll()

    assert follower.predictor.predict(EXAMPLE)["model"] == f"{NAME}@{FIRST}"
    assert (last_swap(follower)["result"], last_swap(follower)["version"]) == ("unreachable", None)
    assert metrics.swaps == {"done": 1, "unreachable": 1}

    (tmp_path / "away").rename(tmp_path / "registry")
    follower.poll()
    assert last_swap(follower)["result"] == "done"
    registry.promote(NAME, SECOND, "champion", "test")
    follower.poll()
    assert follower.predictor.ref == f"{NAME}@{SECOND}"


def test_a_registry_that_goes_while_a_version_is_loaded_is_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")

    def gone(*_: Any) -> None:
        raise UnreachableError("The store is silent.")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "load", gone)
        for _ in range(5):
            follower.poll()
            assert last_swap(follower)["result"] == "unreachable"
    follower.poll()

    assert follower.predictor.ref == f"{NAME}@{SECOND}"


def test_a_pinned_version_is_there_as_soon_as_its_registry_is(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST])
    (tmp_path / "registry").rename(tmp_path / "away")
    follower, _ = following(registry, f"{NAME}@{FIRST}")
    for _ in range(5):
        follower.poll()
    assert last_swap(follower)["result"] == "unreachable"

    (tmp_path / "away").rename(tmp_path / "registry")
    follower.poll()

    assert follower.waiting_for is None


def test_after_the_registry_was_away_a_broken_version_is_named_again(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    for _ in range(3):
        follower.poll()
    (tmp_path / "registry").rename(tmp_path / "away")
    follower.poll()
    assert last_swap(follower)["result"] == "unreachable"

    (tmp_path / "away").rename(tmp_path / "registry")
    follower.poll()

    assert (last_swap(follower)["result"], last_swap(follower)["version"]) == ("failed", SECOND)


def test_it_waits_for_a_model_that_is_not_there_yet(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    follower, _ = following(registry)
    with pytest.raises(RequestError, match="There is no registry at") as caught:
        _ = follower.predictor
    assert caught.value.status == 503

    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    follower.poll()
    assert 'no alias "champion"' in str(follower.waiting_for)

    registry.promote(NAME, FIRST, "champion", "first")
    follower.poll()
    assert follower.waiting_for is None
    assert follower.predictor.ref == f"{NAME}@{FIRST}"


def test_who_needs_a_model_is_told_when_it_is_there(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    follower = Follower(registry, CHAMPION, poll_seconds=0.01)
    polled, told = threading.Event(), threading.Event()
    follower.on_poll = polled.set
    follower.start()

    def wait() -> None:
        follower.wait()
        told.set()

    threading.Thread(target=wait, daemon=True).start()
    polled.clear()
    assert polled.wait(20)
    assert not told.is_set()

    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    registry.promote(NAME, FIRST, "champion", "first")

    assert told.wait(20)
    assert follower.predictor.ref == f"{NAME}@{FIRST}"
    follower.stop()


def test_a_version_and_a_folder_stay(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    for reference in (f"{NAME}@{FIRST}", str(tmp_path / FIRST)):
        follower, _ = following(registry, reference)
        assert not follower.needs_polling
        registry.promote(NAME, SECOND, "champion", "test")
        shutil.rmtree(tmp_path / SECOND, ignore_errors=True)
        follower.poll()
        assert follower.predictor.ref == f"{NAME}@{FIRST}"


def test_a_model_that_fails_its_own_test_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")

    def fail(predictor: Predictor) -> None:
        raise MemoryError(predictor.ref)

    monkeypatch.setattr("serve_app.model.reloader.self_test", fail)
    follower.poll()

    assert follower.predictor.ref == f"{NAME}@{FIRST}"
    assert "MemoryError" in last_swap(follower)["error"]


def test_the_thread_follows_by_itself_and_ends(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    follower = Follower(registry, CHAMPION, poll_seconds=0.01)
    follower.start()
    swapped = threading.Event()
    follower.on_poll = lambda: swapped.set() if follower.predictor.ref == f"{NAME}@{SECOND}" else None
    registry.promote(NAME, SECOND, "champion", "test")

    assert swapped.wait(20)
    follower.stop()

    assert "nightprice-follow" not in [thread.name for thread in threading.enumerate()]
