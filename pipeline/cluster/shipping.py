"""A model on its way to the workers: its files travel, as workers may run on machines that do not see this disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ray

from registry.artifact import SCORING_FILES, Artifact, artifact_of
from registry.files import read_regular


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model's folder that scoring needs."""

    folder: Path
    contents: Mapping[str, bytes]


def ship(artifact: Artifact) -> "ray.ObjectRef[ModelFiles]":
    """Put a model where every worker can fetch it."""
    return ray.put(ModelFiles(artifact.folder, {name: read_regular(artifact.folder, name) for name in SCORING_FILES}))


@lru_cache(maxsize=2)
def shipped(files: "ray.ObjectRef[ModelFiles]") -> Artifact:
    """The model, loaded and checked once in every worker process; from memory, as a worker's disk may be full."""
    model: ModelFiles = ray.get(files)
    return artifact_of(model.contents, model.folder)
