"""The columns of scored rows, which batch prediction and the service share."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.contract import Contract
from transforms.encode import Matrix

MODEL = "model"
"""The column that names the model of a row, as NAME@VERSION."""

Mask = npt.NDArray[np.bool_]


def probability_column(label: str) -> str:
    """The column that holds the probability of a label.

    >>> probability_column("High")
    'probability_High'
    """
    return f"probability_{label}"


def most_probable(labels: Sequence[str], probabilities: Matrix) -> pa.Array:
    """The most probable label of each row of `probabilities` [n, labels]; of equal ones, the first.

    >>> most_probable(("Low", "High"), np.array([[0.4, 0.6], [0.5, 0.5]], np.float32)).to_pylist()
    ['High', 'Low']
    """
    best = probabilities.argmax(axis=1) if len(probabilities) else np.empty(0, np.int64)
    return pa.array(labels, pa.string()).take(pa.array(best))


def most_probable_label(labels: Sequence[str], probabilities: Sequence[float]) -> str:
    """The same for one row of plain numbers, without the cost of arrays.

    >>> most_probable_label(("Low", "High"), [0.5, 0.5])
    'Low'
    """
    return labels[probabilities.index(max(probabilities))]


def scored_columns(
    contract: Contract,
    labels: Sequence[str],
    keys: pa.Array | pa.ChunkedArray,
    probabilities: Matrix,
    unscored: Mask | None = None,
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """The columns of scored rows, but for `MODEL`: the key, the label, and a probability (float32) of each label.

    `probabilities` is float32 [n, labels]; the rows that `unscored` [n] marks have null as label and probabilities.

    >>> from transforms.listings import CONTRACT
    >>> columns = scored_columns(CONTRACT, ("Low", "High"), pa.array([7]), np.array([[0.25, 0.75]], np.float32))
    >>> {name: column.to_pylist() for name, column in columns.items()}
    {'id': [7], 'price_category': ['High'], 'probability_Low': [0.25], 'probability_High': [0.75]}
    """
    best = most_probable(labels, probabilities)
    if unscored is not None:
        best = pc.if_else(pa.array(unscored), pa.scalar(None, pa.string()), best)
    columns = {contract.key: keys, contract.label_name: best}
    for position, label in enumerate(labels):
        column = np.ascontiguousarray(probabilities[:, position])
        columns[probability_column(label)] = pa.array(column, pa.float32(), mask=unscored)
    return columns
