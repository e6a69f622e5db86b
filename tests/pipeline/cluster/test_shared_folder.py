"""A sink that other nodes do not see is refused, without a cluster: nodes are asked through one function."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nightprice.address import parse_address
from nightprice.errors import UsageError
from pipeline.cluster import shared_folder
from pipeline.cluster.shared_folder import check_sink


@pytest.fixture(autouse=True)
def _two_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node 2 sees the disk of this machine; node 3 has one of its own."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 1}, "NodeID": number, "NodeManagerAddress": f"10.0.0.{number}"}
        for number in "123"
    ]
    context = SimpleNamespace(get_node_id=lambda: "1")
    fake = SimpleNamespace(nodes=lambda: nodes, get=list, get_runtime_context=lambda: context)
    monkeypatch.setattr(shared_folder, "ray", fake)
    monkeypatch.setattr(shared_folder, "_ask", lambda node, path: node == "2" and Path(path).exists())


@pytest.mark.parametrize("sink", ["{0}/not/yet/there", "file://{0}/x", "sqlite:///{0}/x.db?table=rows"])
def test_a_folder_that_a_node_does_not_see_is_refused(sink: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of this machine that 10\.0\.0\.3 does not see"):
        check_sink(parse_address(sink.format(tmp_path)))

    assert list(tmp_path.iterdir()) == []


def test_a_bucket_is_seen_by_all() -> None:
    check_sink(parse_address("s3://bucket/dataset"))
