"""Records and tables to the float32 feature vectors of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightprice.errors import UnknownValueError, closest
from transforms.contract import FEATURES, FIELDS_BY_NAME, ROOM_TYPES
from transforms.lift import distinct

Matrix = npt.NDArray[np.float32]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Vocabulary:
    """The categories that a model learned, each with its code: its rank by mean price category, from 1.

    Generalises the notebook's hand-made order Bronx < Queens < … to any city. Room types keep the notebook's order.
    """

    neighbourhood: Mapping[str, int]
    property_type: Mapping[str, int]
    """Rare types share one code."""
    room_type: Mapping[str, int]

    @classmethod
    def learn(
        cls,
        neighbourhoods: Mapping[str, Sequence[int]],
        property_types: Mapping[str, Sequence[int]],
        rare_below: int = 20,
    ) -> "Vocabulary":
        """From how often each value occurs with each category, lowest category first.

        Property types that occur less than `rare_below` times share one code.

        >>> Vocabulary.learn({"Bronx": [9, 1], "Manhattan": [2, 8]}, {"Castle": [0, 1]}).neighbourhood
        {'Bronx': 1, 'Manhattan': 2}
        """
        rare = {name for name, counts in property_types.items() if sum(counts) < rare_below}
        groups = {name: list(counts) for name, counts in property_types.items() if name not in rare}
        codes = _ranked(
            groups | ({_RARE: np.sum([property_types[name] for name in rare], axis=0).tolist()} if rare else {})
        )
        shared = codes.pop(_RARE, 0)
        return cls(
            _ranked(neighbourhoods),
            codes | dict.fromkeys(sorted(rare), shared),
            {name: i + 1 for i, name in enumerate(ROOM_TYPES)},
        )

    def as_json(self) -> dict[str, dict[str, int]]:
        return {name: dict(getattr(self, name)) for name in ("neighbourhood", "property_type", "room_type")}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> "Vocabulary":
        return cls(data["neighbourhood"], data["property_type"], data["room_type"])

    def unknown(self, table: pa.Table | Mapping[str, pa.Array]) -> dict[str, npt.NDArray[np.bool_]]:
        """For `neighbourhood` and `room_type`: which rows hold a value that the model does not know, if any do.

        Missing is not unknown: the contract has its own word for it.
        """
        found = {}
        for name in STRICT:
            values, indices = distinct(table[name])
            strange = np.array([value is not None and value not in getattr(self, name) for value in values], np.bool_)
            if strange.any():
                found[name] = strange[indices]
        return found


_RARE = "\0rare"
# Fields whose unknown value is an error, never a silent NaN. An unknown property type is missing.
STRICT = ("neighbourhood", "room_type")


def _ranked(counts: Mapping[str, Sequence[int]]) -> dict[str, int]:
    def mean(name: str) -> float:
        return float(np.dot(counts[name], np.arange(len(counts[name]))) / max(sum(counts[name]), 1))

    return {name: rank + 1 for rank, name in enumerate(sorted(counts, key=lambda name: (mean(name), name)))}


def feature_value(name: str, value: Any, vocabulary: Vocabulary) -> float:
    """One value of a record as a number; missing as NaN.

    Raises UnknownValueError for a neighbourhood or room type that the model does not know.
    """
    if value is None:
        return np.nan
    if not pa.types.is_string(FIELDS_BY_NAME[name].type):
        return float(value)
    known: Mapping[str, int] = getattr(vocabulary, name)
    if name in STRICT and value not in known:
        listed = ", ".join(f'"{item}"' for item in list(known)[:50])
        raise UnknownValueError(
            f'{name}: the model does not know "{value}".{closest(str(value), known)} It knows {listed}.'
        )
    return float(known.get(value, np.nan))


def encode_record(record: Mapping[str, Any], vocabulary: Vocabulary) -> Matrix:
    """The feature vector of one record, float32 [17] in the order of FEATURES."""
    return np.array([feature_value(name, record.get(name), vocabulary) for name in FEATURES], np.float32)


def encode_table(table: pa.Table, vocabulary: Vocabulary) -> Matrix:
    """The feature vectors of accepted rows, float32 [n, 17] in the order of FEATURES.

    Equal bit by bit to `encode_record` of each row. Raises UnknownValueError as it does.
    """
    matrix = np.empty((len(table), len(FEATURES)), np.float32)
    for position, name in enumerate(FEATURES):
        column = table[name]
        if pa.types.is_string(FIELDS_BY_NAME[name].type):
            values, indices = distinct(column)
            matrix[:, position] = np.array([feature_value(name, value, vocabulary) for value in values], np.float32)[
                indices
            ]
        else:
            matrix[:, position] = (
                column.cast(pa.float64()).to_numpy() if pa.types.is_integer(column.type) else _numbers(column)
            )
    return matrix


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Booleans and floats as numbers, null as NaN."""
    plain = column.cast(pa.float32()) if pa.types.is_boolean(column.type) else column
    numbers: npt.NDArray[Any] = plain.to_numpy()
    return numbers
