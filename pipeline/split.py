"""Which rows a model is trained on, which decide when training stops, and which it never sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightprice.errors import UsageError
from nightprice.hashing import mix64

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Different salts, so that the parts of different splits are independent of each other.
_HOLDOUT, _VALIDATION, SAMPLE = 1, 2, 3


@dataclass(frozen=True)
class Split:
    """A share of the rows by a stable hash of the key, or exactly the rows with some keys.

    A row keeps its part whatever else the dataset holds, on any machine; rows that repeat a key stay together.
    """

    share: float
    ids: Ids | None = None
    """Ascending; None: by the hash."""
    file: str | None = None

    def is_holdout(self, ids: Ids) -> Mask:
        """Which rows the model never sees in training."""
        if self.ids is not None:
            return np.isin(ids, self.ids)
        return unit_hash(ids, _HOLDOUT) < self.share

    def as_json(self) -> dict[str, Any]:
        """For the manifest. The ids themselves lie in the artifact's file `holdout_ids.csv`."""
        if self.ids is None:
            return {"kind": "hash", "holdout_share": self.share}
        return {"kind": "ids", "file": self.file, "ids": len(self.ids)}

    def ids_file(self) -> dict[str, bytes]:
        """The artifact's file of ids, if the split is by ids."""
        return {} if self.ids is None else {HOLDOUT_FILE: "\n".join(["id", *map(str, self.ids.tolist())]).encode()}

    @classmethod
    def of_model(cls, manifest: Mapping[str, Any], folder: Path) -> "Split":
        """The split that a model was trained with, from its artifact."""
        recorded = manifest["split"]
        if recorded["kind"] == "hash":
            return cls(float(recorded["holdout_share"]))
        return read_split(str(folder / HOLDOUT_FILE), 0.0)


HOLDOUT_FILE = "holdout_ids.csv"


def is_validation(ids: Ids, share: float) -> Mask:
    """Which training rows early stopping watches."""
    return unit_hash(ids, _VALIDATION) < share


def unit_hash(ids: Ids, salt: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every id: stable, and unrelated to the order of ids.

    >>> unit_hash(np.array([1, 2]), 1).round(3).tolist()
    [0.567, 0.591]
    """
    salted = ids.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    return (mix64(salted) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def read_split(file: str | None, share: float) -> Split:
    """The split by the ids of a file (one id a line, with or without the heading "id"), or by the hash without a file.

    Raises UsageError for a file that is missing, empty or holds something else than ids.
    """
    if file is None:
        return Split(share)
    try:
        lines = Path(file).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f'The file of holdout ids "{file}" can\'t be read: {_why(error)}. Give a text file with one id a line.'
        ) from error
    entries = [(number, text.strip().strip('"')) for number, text in enumerate(lines, 1) if text.strip()]
    if entries and entries[0][1].casefold() == "id":
        entries = entries[1:]
    for number, text in entries:
        if not text.isascii() or not text.isdigit() or int(text) >= 2**63:
            raise UsageError(
                f'The file of holdout ids "{file}" holds "{text[:40]}" in line {number}. Give one whole number a line.'
            )
    if not entries:
        raise UsageError(f'The file of holdout ids "{file}" holds no ids. Give one id a line.')
    return Split(share, np.unique(np.array([int(text) for _, text in entries], np.int64)), file)


def _why(error: OSError | UnicodeDecodeError) -> str:
    return "it is not a text file" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
