"""The folder of a Ray job: Ray's own copy of the working folder that was uploaded, removed with Ray's session."""

from pathlib import Path

from nightprice.errors import UsageError


def check_outlives_job(path: Path | None, display: str) -> None:
    """Raise UsageError for a place to write to that lies in a job's copy of its working folder; None is elsewhere.

    >>> check_outlives_job(Path("/data/dataset"), "/data/dataset")
    """
    if path is not None and any(_is_copy(folder) for folder in (path, *path.parents)):
        raise UsageError(
            f'"{display}" lies in Ray\'s temporary copy of the working folder: what this job writes there is lost. '
            "Name a bucket, a database, or an absolute path outside it."
        )


def _is_copy(folder: Path) -> bool:
    # SESSION/runtime_resources/working_dir_files/_ray_pkg_…
    return folder.parent.name == "working_dir_files" and folder.parent.parent.name == "runtime_resources"
