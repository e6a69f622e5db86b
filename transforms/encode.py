"""Records and tables to the float32 feature vectors of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightprice.errors import UnknownValueError, closest
from transforms.contract import FIXED_ORDER, RANKED_WITH_RARE, Contract
from transforms.lift import distinct

Matrix = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Vocabulary = Mapping[str, Mapping[str, int]]
"""For every feature that is a text: the values that a model learned, each with its code."""

# Values of `ranked_with_rare` that occur less often share one code.
RARE_BELOW = 20
_RARE = "\0rare"
# How many known values a message lists.
_LISTED = 50


def learn_vocabulary(
    contract: Contract, counts: Mapping[str, Mapping[str, Sequence[int]]]
) -> dict[str, dict[str, int]]:
    """The vocabulary of training rows, from how often each value of a field occurs with each label, lowest label first.

    Generalises the notebook's hand-made order Bronx < Queens < … to any city, and its order of room types.

    >>> from transforms.listings import CONTRACT
    >>> counts = {"neighbourhood": {"Bronx": [9, 1], "Manhattan": [2, 8]}, "property_type": {"Castle": [0, 1]}}
    >>> learn_vocabulary(CONTRACT, counts)["neighbourhood"]
    {'Bronx': 1, 'Manhattan': 2}
    """
    vocabulary = {}
    for name, encoding in contract.coded.items():
        if encoding == FIXED_ORDER:
            vocabulary[name] = {value: position for position, value in enumerate(contract.by_name[name].allowed, 1)}
        else:
            vocabulary[name] = _ranked(counts[name], RARE_BELOW if encoding == RANKED_WITH_RARE else 0)
    return vocabulary


def _ranked(counts: Mapping[str, Sequence[int]], rare_below: int) -> dict[str, int]:
    rare = {name for name, by_label in counts.items() if sum(by_label) < rare_below}
    groups = {name: list(by_label) for name, by_label in counts.items() if name not in rare}
    if rare:
        groups[_RARE] = np.sum([counts[name] for name in rare], axis=0).tolist()

    def mean(name: str) -> float:
        return float(np.dot(groups[name], np.arange(len(groups[name]))) / max(sum(groups[name]), 1))

    codes = {name: rank for rank, name in enumerate(sorted(groups, key=lambda name: (mean(name), name)), 1)}
    return codes | dict.fromkeys(sorted(rare), codes.pop(_RARE, 0))


class Encoder:
    """Encodes by a contract and what one model learned of its texts. It can be pickled."""

    def __init__(self, contract: Contract, vocabulary: Vocabulary) -> None:
        self.contract, self.vocabulary = contract, vocabulary
        self._columns = [(name, vocabulary.get(name), name in contract.strict) for name in contract.features]

    def record(self, record: Mapping[str, Any]) -> Matrix:
        """The feature vector of one record, float32 [features] in the order of `contract.features`; missing as NaN.

        Raises UnknownValueError for a value that the model does not know, where the encoding has no code for it.
        """
        vector = [self._value(name, record.get(name), codes, is_strict) for name, codes, is_strict in self._columns]
        return np.array(vector, np.float32)

    def table(self, table: pa.Table) -> Matrix:
        """The feature vectors of accepted rows, float32 [rows, features].

        Equal bit by bit to `record` of each row, and raises as it does.
        """
        matrix = np.empty((len(table), len(self._columns)), np.float32)
        for position, (name, codes, is_strict) in enumerate(self._columns):
            column = table[name]
            if codes is None:
                matrix[:, position] = _numbers(column)
            else:
                values, indices = distinct(column)
                encoded = [self._value(name, value, codes, is_strict) for value in values]
                matrix[:, position] = np.array(encoded, np.float32)[indices]
        return matrix

    def unknown(self, table: pa.Table | Mapping[str, pa.Array]) -> dict[str, Mask]:
        """By field, where any row holds a value that the model does not know: which rows do.

        Missing is not unknown: the contract has its own word for it.
        """
        masks = {}
        for name in self.contract.strict:
            values, indices = distinct(table[name])
            unknown = np.array([value is not None and value not in self.vocabulary[name] for value in values], np.bool_)
            if unknown.any():
                masks[name] = unknown[indices]
        return masks

    @staticmethod
    def _value(name: str, value: Any, codes: Mapping[str, int] | None, is_strict: bool) -> float:
        if value is None:
            return np.nan
        if codes is None:
            return float(value)
        if is_strict and value not in codes:
            known = ", ".join(f'"{item}"' for item in list(codes)[:_LISTED])
            raise UnknownValueError(
                f'{name}: the model does not know "{value}".{closest(str(value), codes)} It knows {known}.'
            )
        return float(codes.get(value, np.nan))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Booleans, integers and floats as numbers, null as NaN."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.float64(), safe=False)  # beyond 2**53 rounded, as Python's float() does
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.float32())
    numbers: npt.NDArray[Any] = column.to_numpy()
    return numbers
