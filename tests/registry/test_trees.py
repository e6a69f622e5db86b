"""The trees of a model, as a file that says the same wherever and whenever it is written."""

import io
import zipfile
from dataclasses import fields

import numpy as np
import pytest

from registry.trees import TreeArrays


def two_trees() -> TreeArrays:
    """A stump and a tree that is one leaf."""
    return TreeArrays(
        tree=np.array([0, 0, 0, 1]),
        feature=np.array([2, 0, 0, 0]),
        threshold=np.array([0.5, 0, 0, 0]),
        left=np.array([1, -1, -1, -1]),
        right=np.array([2, -1, -1, -1]),
        missing_left=np.array([1, 0, 0, 0]),
        leaf=np.array([1, 2, 3]),
        category=np.array([0, 0, 1]),
        weight=np.array([-0.1, 0.1, 0.3]),
        cover=np.array([10.0, 4.0, 6.0, 10.0]),
        base=np.array([0.5, 0.5]),
    )


def test_what_is_written_is_read() -> None:
    read = TreeArrays.from_bytes(two_trees().to_bytes())
    for item in fields(TreeArrays):
        np.testing.assert_allclose(getattr(read, item.name), getattr(two_trees(), item.name), rtol=1e-6)


def test_the_content_does_not_depend_on_the_time() -> None:
    content = two_trees().to_bytes()
    assert {entry.date_time for entry in zipfile.ZipFile(io.BytesIO(content)).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_roots_of_all_trees() -> None:
    assert two_trees().roots.tolist() == [0, 3]
    assert two_trees().root_of_node.tolist() == [0, 0, 0, 3]


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{item.name: np.array([{}]) for item in fields(TreeArrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def without_cover() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, tree=np.zeros(1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no trees", two_trees().to_bytes()[:-30], two_trees().to_bytes()[:200], pickled(), without_cover()],
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a file of trees"):
        TreeArrays.from_bytes(content)
