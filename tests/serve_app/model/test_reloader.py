"""A replica follows its alias: what is promoted answers, what is broken changes nothing."""

import logging
import shutil
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nightprice.errors import NightpriceError
from registry.artifact import Golden
from registry.errors import UnreachableError
from registry.registry import Registry
from serve_app.errors import RequestError
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import ModelReloader, self_test
from tests.support.forged import forge
from tests.support.serving.metrics import AnnouncingMetrics, CountingMetrics
from tests.support.serving.models import boosted_artifact, registry_with
from tests.support.serving.requests import EXAMPLE
from tests.support.tiny_model import FIRST, NAME, SECOND, THIRD, golden_rows, tiny_artifact
from transforms.encode import Matrix
from transforms.listings import CONTRACT

CHAMPION = f"{NAME}@champion"


def following(registry: Registry, reference: str = CHAMPION, **options: Any) -> tuple[ModelReloader, CountingMetrics]:
    metrics = CountingMetrics()
    reloader = ModelReloader(registry, reference, CONTRACT, metrics=metrics, **options)
    reloader.poll()
    return reloader, metrics


def last_swap(reloader: ModelReloader) -> dict[str, Any]:
    swap: dict[str, Any] = reloader.status()["last_swap"]
    return swap


def test_a_promotion_and_a_rollback_are_followed(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, metrics = following(registry)
    in_flight = reloader.predictor
    first = in_flight.predict(EXAMPLE)
    assert first["model"] == f"{NAME}@{FIRST}"

    registry.promote(NAME, SECOND, "champion", "better")
    reloader.poll()

    second = reloader.predictor.predict(EXAMPLE)
    assert second["model"] == f"{NAME}@{SECOND}"
    assert second["probabilities"] != first["probabilities"]
    assert (last_swap(reloader)["version"], last_swap(reloader)["previous"], last_swap(reloader)["result"]) == (
        SECOND,
        FIRST,
        "done",
    )
    assert in_flight.predict(EXAMPLE) == first, "a request in flight ends on the model it began with"

    registry.rollback(NAME, "champion", "worse")
    reloader.poll()

    assert reloader.predictor.predict(EXAMPLE) == first
    assert metrics.reloads == {"done": 3}
    assert metrics.models == [f"{NAME}@{FIRST}", f"{NAME}@{SECOND}", f"{NAME}@{FIRST}"]


def test_nothing_is_loaded_while_nothing_changes(tmp_path: Path) -> None:
    reloader, metrics = following(registry_with(tmp_path, [FIRST]))
    held, since = reloader.predictor, reloader.status()["since"]

    reloader.poll()

    assert reloader.predictor is held
    assert reloader.status()["since"] == since
    assert metrics.reloads == {"done": 1}


@pytest.mark.parametrize("damage", ["corrupt", "missing", "format"])
def test_a_version_that_cannot_be_used_changes_nothing(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    folder = tmp_path / "registry" / NAME / "versions" / SECOND
    if damage == "corrupt":
        (folder / "model.onnx").write_bytes(b"no model")
    elif damage == "missing":
        (folder / "model.onnx").unlink()
    else:
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 99'))

    with caplog.at_level(logging.INFO):
        reloader.poll()

    assert reloader.predictor.predict(EXAMPLE)["model"] == f"{NAME}@{FIRST}"
    swap = last_swap(reloader)
    assert (swap["version"], swap["previous"], swap["result"]) == (SECOND, FIRST, "failed")
    assert SECOND in swap["error"]
    assert metrics.reloads == {"done": 1, "failed": 1}
    assert f"{FIRST} stays in force" in caplog.text


def test_a_failed_version_is_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    model = tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx"
    kept = model.read_bytes()
    model.unlink()

    tries = []
    for _ in range(10):
        before = metrics.reloads["failed"]
        reloader.poll()
        tries.append(metrics.reloads["failed"] - before)
    assert tries == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0]

    model.write_bytes(kept)
    for _ in range(6):
        reloader.poll()
    assert reloader.predictor.ref == f"{NAME}@{SECOND}"


def test_a_later_promotion_does_not_wait_for_a_failed_one(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND, THIRD])
    reloader, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    for _ in range(4):
        reloader.poll()

    registry.promote(NAME, THIRD, "champion", "fixed")
    reloader.poll()

    assert reloader.predictor.ref == f"{NAME}@{THIRD}"


def test_a_rollback_from_a_failed_version_is_no_swap(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, _ = following(registry)
    held, before = reloader.predictor, last_swap(reloader)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    reloader.poll()

    assert last_swap(reloader)["result"] == "failed"

    registry.rollback(NAME, "champion", "broken")
    reloader.poll()

    assert reloader.predictor is held
    # Nobody should go back once more.
    assert last_swap(reloader) == before


def test_while_the_registry_is_away_the_model_goes_on(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, metrics = following(registry)
    (tmp_path / "registry").rename(tmp_path / "away")

    reloader.poll()

    assert reloader.predictor.predict(EXAMPLE)["model"] == f"{NAME}@{FIRST}"
    assert (last_swap(reloader)["result"], last_swap(reloader)["version"]) == ("unreachable", None)
    assert metrics.reloads == {"done": 1, "unreachable": 1}

    (tmp_path / "away").rename(tmp_path / "registry")
    reloader.poll()
    assert last_swap(reloader)["result"] == "done"
    registry.promote(NAME, SECOND, "champion", "test")
    reloader.poll()
    assert reloader.predictor.ref == f"{NAME}@{SECOND}"


def test_a_registry_that_goes_while_a_version_is_loaded_is_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")

    def gone(*_: Any) -> None:
        raise UnreachableError("The store is silent.")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "load", gone)
        for _ in range(5):
            reloader.poll()
            assert last_swap(reloader)["result"] == "unreachable"
    reloader.poll()

    assert reloader.predictor.ref == f"{NAME}@{SECOND}"


def test_a_pinned_version_is_there_as_soon_as_its_registry_is(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST])
    (tmp_path / "registry").rename(tmp_path / "away")
    reloader, _ = following(registry, f"{NAME}@{FIRST}")
    for _ in range(5):
        reloader.poll()
    assert last_swap(reloader)["result"] == "unreachable"

    (tmp_path / "away").rename(tmp_path / "registry")
    reloader.poll()

    assert reloader.waiting_for is None


def test_after_the_registry_was_away_a_broken_version_is_named_again(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    (tmp_path / "registry" / NAME / "versions" / SECOND / "model.onnx").unlink()
    for _ in range(3):
        reloader.poll()
    (tmp_path / "registry").rename(tmp_path / "away")
    reloader.poll()
    assert last_swap(reloader)["result"] == "unreachable"

    (tmp_path / "away").rename(tmp_path / "registry")
    reloader.poll()

    assert (last_swap(reloader)["result"], last_swap(reloader)["version"]) == ("failed", SECOND)


def test_it_waits_for_a_model_that_is_not_there_yet(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    reloader, _ = following(registry)
    with pytest.raises(RequestError, match="There is no registry at") as caught:
        _ = reloader.predictor
    assert caught.value.status == 503

    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    reloader.poll()
    assert 'no alias "champion"' in str(reloader.waiting_for)

    registry.promote(NAME, FIRST, "champion", "first")
    reloader.poll()
    assert reloader.waiting_for is None
    assert reloader.predictor.ref == f"{NAME}@{FIRST}"


def test_who_needs_a_model_is_told_when_it_is_there(tmp_path: Path) -> None:
    registry, metrics = Registry(str(tmp_path / "registry")), AnnouncingMetrics()
    reloader = ModelReloader(registry, CHAMPION, CONTRACT, poll_seconds=0.01, metrics=metrics)
    reloader.start()
    has_model = threading.Event()

    def wait() -> None:
        reloader.wait()
        has_model.set()

    threading.Thread(target=wait, daemon=True).start()
    assert [metrics.await_poll() for _ in range(3)] == [None] * 3
    assert not has_model.is_set()

    registry.publish(tiny_artifact(tmp_path / "model"), NAME)
    registry.promote(NAME, FIRST, "champion", "first")

    assert has_model.wait(20)
    assert reloader.predictor.ref == f"{NAME}@{FIRST}"
    reloader.stop()


def test_the_newest_version_is_followed(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST])
    reloader, _ = following(registry, f"{NAME}@latest")
    assert reloader.predictor.ref == f"{NAME}@{FIRST}"

    registry.publish(tiny_artifact(tmp_path / SECOND, SECOND), NAME)
    reloader.poll()

    assert reloader.predictor.ref == f"{NAME}@{SECOND}"


def test_a_model_of_another_contract_is_not_taken(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST])
    reloader = ModelReloader(registry, CHAMPION, replace(CONTRACT, version=CONTRACT.version + 1))

    reloader.poll()

    assert 'under version 1 of the contract "listing-price"' in str(reloader.waiting_for)


def test_a_version_and_a_folder_stay(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    for reference in (f"{NAME}@{FIRST}", str(tmp_path / FIRST)):
        reloader, _ = following(registry, reference)
        assert not reloader.needs_polling
        registry.promote(NAME, SECOND, "champion", "test")
        shutil.rmtree(tmp_path / SECOND, ignore_errors=True)
        reloader.poll()
        assert reloader.predictor.ref == f"{NAME}@{FIRST}"


def test_a_model_that_fails_its_own_test_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND])
    reloader, _ = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")

    def fail(predictor: Predictor, threads: int) -> None:
        raise MemoryError(predictor.ref)

    monkeypatch.setattr("serve_app.model.reloader.self_test", fail)
    reloader.poll()

    assert reloader.predictor.ref == f"{NAME}@{FIRST}"
    assert "MemoryError" in last_swap(reloader)["error"]


def test_the_thread_follows_by_itself_and_ends(tmp_path: Path) -> None:
    registry, metrics = registry_with(tmp_path, [FIRST, SECOND]), AnnouncingMetrics()
    reloader = ModelReloader(registry, CHAMPION, CONTRACT, poll_seconds=0.01, metrics=metrics)
    reloader.start()
    registry.promote(NAME, SECOND, "champion", "test")

    while metrics.await_poll() != f"{NAME}@{SECOND}":
        pass
    reloader.stop()

    assert "nightprice-reload" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    "entries", [{"created": "the day before"}, {"name": "../../x"}, {"version": THIRD}, {"metrics": {"accuracy": []}}]
)
def test_a_forged_manifest_does_not_end_the_following(tmp_path: Path, entries: dict[str, Any]) -> None:
    registry = registry_with(tmp_path, [FIRST, SECOND, THIRD])
    reloader, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    forge(tmp_path / "registry" / NAME / "versions" / SECOND, **entries)

    for _ in range(3):
        reloader.poll()
    assert (reloader.predictor.ref, last_swap(reloader)["result"]) == (f"{NAME}@{FIRST}", "failed")
    assert metrics.reloads == {"done": 1, "failed": 2}, "it is not loaded again and again"

    registry.promote(NAME, THIRD, "champion", "test")
    reloader.poll()
    assert reloader.predictor.ref == f"{NAME}@{THIRD}"


class Panic(BaseException):
    """As pyo3's, which is no Exception."""


@pytest.mark.parametrize("error", [ValueError("metric"), MemoryError(), Panic()])
@pytest.mark.parametrize("place", ["registry", "metrics", "log"])
def test_nothing_that_is_raised_ends_the_thread(
    tmp_path: Path, error: BaseException, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, metrics = registry_with(tmp_path, [FIRST, SECOND]), AnnouncingMetrics()
    reloader = ModelReloader(registry, CHAMPION, CONTRACT, poll_seconds=0.01, metrics=metrics)
    reloader.start()
    registry.promote(NAME, SECOND, "champion", "test")
    raised = threading.Event()

    def fail(*_: Any) -> Any:
        raised.set()
        raise error

    targets = {"registry": (registry, "resolve"), "metrics": (metrics, "model"), "log": (reloader, "_tidy_cache")}
    with monkeypatch.context() as patch:
        patch.setattr(*targets[place], fail)
        assert raised.wait(20)

    while metrics.await_poll() != f"{NAME}@{SECOND}":
        pass
    reloader.stop()


def test_it_says_when_the_registry_was_last_asked_in_vain_or_not(tmp_path: Path) -> None:
    before = time.time()
    reloader, metrics = following(registry_with(tmp_path, [FIRST]))
    checked = reloader.status()["last_check"]
    assert before <= metrics.checks[-1] <= time.time()
    assert abs(datetime.fromisoformat(checked).timestamp() - metrics.checks[-1]) < 0.001

    (tmp_path / "registry").rename(tmp_path / "away")
    reloader.poll()
    assert reloader.status()["last_check"] == checked, "it was asked in vain"
    assert metrics.checks == [metrics.checks[0]] * 2

    (tmp_path / "away").rename(tmp_path / "registry")
    reloader.poll()
    assert metrics.checks[-1] > metrics.checks[0]


def test_what_stays_is_never_asked_for(tmp_path: Path) -> None:
    reloader, metrics = following(registry_with(tmp_path, [FIRST]), f"{NAME}@{FIRST}")
    assert (reloader.status()["last_check"], metrics.checks) == (None, [])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_any_number_of_threads_scores(tmp_path: Path, threads: int) -> None:
    # Fewer trees than 240 are not divided among threads.
    model = boosted_artifact(tmp_path / "model", rounds=60)

    reloader, _ = following(Registry(str(tmp_path / "registry")), str(model), threads=threads)

    assert reloader.predictor.ref == f"{NAME}@{FIRST}"


def test_a_model_that_scores_rows_otherwise_together_is_not_taken() -> None:
    rows = golden_rows()

    def by_count(matrix: Matrix) -> Matrix:
        return np.full((len(matrix), 4), 0.25 if len(matrix) > 1 else 0.251, np.float32)

    predictor: Any = SimpleNamespace(ref="x", artifact=SimpleNamespace(golden=Golden(rows, rows), predict=by_count))

    with pytest.raises(NightpriceError, match=r"other probabilities than many, by up to 0\.001\."):
        self_test(predictor, threads=2)


def test_a_service_keeps_no_models_that_nobody_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, tidied = registry_with(tmp_path, [FIRST, SECOND]), list[str]()

    def tidy(in_force: Any) -> None:
        tidied.append(in_force.version)
        raise OSError("read-only")

    monkeypatch.setattr(registry, "tidy_cache", tidy)
    reloader, metrics = following(registry)
    registry.promote(NAME, SECOND, "champion", "test")
    reloader.poll()
    reloader.poll()

    assert tidied == [FIRST, SECOND]
    assert metrics.reloads == {"done": 2}, "a cache that can't be tidied is not a failure of the model"
