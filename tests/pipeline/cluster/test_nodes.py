"""A node that can't work is named before anything is placed on it."""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from pipeline.cluster import nodes
from pipeline.cluster.nodes import NodeError, check_nodes

pytestmark = pytest.mark.usefixtures("ray_session")
FIX = re.escape(". Free some space on the disk of that node, or run `ray stop` there, then try again.")


def dies(folder: str) -> tuple[int, int]:
    os._exit(1)


def waits_for(file: Path) -> Callable[[str], tuple[int, int]]:
    def wait(folder: str) -> tuple[int, int]:
        while not file.exists():
            time.sleep(0.01)
        return 1, 1

    return wait


def sentence(found: str) -> str:
    return rf"^Nothing was started: on {re.escape(ray.nodes()[0]['NodeManagerAddress'])} {found}{FIX}$"


def test_nodes_that_work_are_no_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(nodes, "SPILL_SHARE", 1.0)
    check_nodes()

    assert not caplog.records


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "FULL_BYTES", 2**60)
    with pytest.raises(NodeError, match=sentence(r"the disk is full \([\d,]+ of [\d,]+ MiB are free\)")):
        check_nodes()


def test_a_disk_that_ray_does_not_spill_to_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes, "SPILL_SHARE", 0.0)
    with caplog.at_level(logging.WARNING):
        check_nodes()

    (record,) = caplog.records
    assert re.fullmatch(
        r"On \S+ only [\d,]+ of [\d,]+ MiB are free: Ray spills no objects there\.", record.getMessage()
    )


def test_a_node_whose_processes_die_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_free_and_total", dies)
    with pytest.raises(
        NodeError, match=sentence("a process died as soon as it had started, as it does where the disk is full")
    ):
        check_nodes()


def test_a_node_that_starts_no_process_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nodes, "_free_and_total", waits_for(tmp_path / "go"))
    with pytest.raises(NodeError, match=sentence(r"no process started within 0\.2 s, as where the disk is full")):
        check_nodes(seconds=0.2)
    (tmp_path / "go").touch()
