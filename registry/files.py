"""Reading a file that someone else may have put there."""

import errno
import os
import stat
from pathlib import Path

from registry.errors import ArtifactError

# Ten times the largest seen: a manifest names every value that a model learned of a text.
MOST_MANIFEST_BYTES = 16 * 2**20
# Of a file whose manifest does not say its size; the notebook's forest has 37 MB.
MOST_FILE_BYTES = 2**30


def read_regular(root: Path, name: str, most: int = MOST_FILE_BYTES) -> bytes:
    """The content of a file below a folder, of so many bytes at most.

    Raises OSError if there is none or it can't be read, ArtifactError if it is larger, lies elsewhere by a link, or is
    no regular file: a pipe would never end, and nor would a device.
    """
    path = root / name
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ArtifactError(f"{path} is a link to itself. Put the file itself there.") from error
    if not Path(real).is_relative_to(os.path.realpath(root)):
        raise ArtifactError(f"{path} is a link that leads out of {root}. Put the file itself there.")
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path} is not a regular file. Restore the file, or use another version.")
        check_size(status.st_size, most, str(path))
        # As it may grow meanwhile.
        return stream.read(status.st_size)


def check_size(size: int, most: int, where: str) -> None:
    """Raise ArtifactError for a file that is too large to be what it should be."""
    if size > most:
        raise ArtifactError(
            f"{where} has {size:,} bytes, and at most {most:,} are expected. Restore the file, or use another version."
        )
