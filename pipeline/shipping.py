"""A model on its way to the workers: its files travel, for they may run on machines that don't see this one's disk."""

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import ray

from registry.artifact import Artifact, load_artifact

ModelFiles = Mapping[str, bytes]


def ship(artifact: Artifact) -> "ray.ObjectRef[ModelFiles]":
    """Put the files of a model where every worker can fetch them."""
    files: ModelFiles = {name: (artifact.folder / name).read_bytes() for name in artifact.manifest["sha256"]}
    return ray.put(files)


@lru_cache(maxsize=2)
def shipped(files: "ray.ObjectRef[ModelFiles]") -> Artifact:
    """The model, loaded and checked once in every worker process."""
    contents: ModelFiles = ray.get(files)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        return load_artifact(Path(folder))
