"""What is thin or strange in data or in a model, in a sentence each: nothing is refused for it, but it is said."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from registry.manifest import Majority
from transforms.contract import Bands, Contract, Label

# A label or a gap of at least this share is worth a note.
MOST = 0.9
# Of fewer rows, a field that has one value says nothing.
ENOUGH_ROWS = 100
# An accuracy measured on fewer rows is uncertain by 3 points and more (one standard error).
THIN_HOLDOUT = 200


def dataset_notes(sample: pa.Table, contract: Contract, label: Label) -> list[str]:
    """Notes on accepted rows, from a sample of them."""
    counts = {entry["values"]: entry["counts"] for entry in sample[contract.label_name].value_counts().to_pylist()}
    labels = label_notes(counts)
    if labels and isinstance(label, Bands) and (bins := proposed_bins(sample[contract.target], label)):
        labels = [f"{labels[0]} Bins that divide this data evenly: bins = {list(bins)}."]
    return [*labels, *field_notes(sample, contract)]


def label_notes(counts: Mapping[str, int]) -> list[str]:
    """A note if nearly all rows have one label.

    >>> label_notes({"Lux": 94, "High": 6}), label_notes({"Lux": 50, "High": 50})
    (['94.0% of the rows have the one label "Lux": a model has little to learn. Set bins that divide this data.'], [])
    """
    rows = sum(counts.values())
    most = max(counts, key=lambda name: counts[name], default=None)
    if most is None or rows < 2 or counts[most] < MOST * rows:
        return []
    return [
        f'{counts[most] / rows:.1%} of the rows have the one label "{most}": a model has little to learn. Set bins '
        "that divide this data."
    ]


def proposed_bins(target: pa.ChunkedArray, label: Bands) -> tuple[float, ...] | None:
    """Bins that divide numbers evenly among the labels, in two significant digits; None if there are none.

    >>> bands = Bands((90.0, 180.0), ("Low", "Mid", "High"))
    >>> proposed_bins(pa.chunked_array([list(range(300, 600))]), bands)
    (400.0, 500.0)
    """
    shares = [(position + 1) / len(label.labels) for position in range(len(label.bins))]
    quantiles = [float(f"{value:.2g}") for value in np.quantile(target.to_numpy(), shares)]
    ascending = all(low < high for low, high in zip([label.minimum, *quantiles], quantiles, strict=False))
    return tuple(quantiles) if ascending else None


def field_notes(sample: pa.Table, contract: Contract) -> list[str]:
    """A note for each feature that nearly all rows lack, or that has one value in all rows of a sample."""
    return list(_field_notes(sample, contract)) if len(sample) >= ENOUGH_ROWS else []


def _field_notes(sample: pa.Table, contract: Contract) -> Iterator[str]:
    for name in contract.features:
        column = sample[name]
        if column.null_count >= MOST * len(sample):
            yield f"{name} is missing in {column.null_count / len(sample):.0%} of the rows."
        elif not column.null_count and len(pc.unique(column)) == 1:
            yield f'{name} is "{column[0].as_py()}" in all rows: no model learns from it.'


def evaluation_notes(rows: int, accuracy: float, majority: Majority) -> list[str]:
    """Notes on how a model did on `rows` rows with a target.

    >>> evaluation_notes(900, 0.941, {"label": "Mid", "accuracy": 0.951, "macro_f1": 0.2})
    ['The accuracy of 94.1% is not above the 95.1% of always answering "Mid".']
    >>> evaluation_notes(50, 0.7, {"label": "Mid", "accuracy": 0.5, "macro_f1": 0.2})
    ['Only 50 rows measure the model: its accuracy is uncertain by about 12 points (95 %).']
    >>> evaluation_notes(35, 1.0, {"label": "Mid", "accuracy": 0.5, "macro_f1": 0.2})
    ['Only 35 rows measure the model: its accuracy is uncertain by about 5 points (95 %).']
    """
    notes = []
    always = majority["accuracy"]
    if accuracy <= always:
        notes.append(
            f'The accuracy of {accuracy:.1%} is not above the {always:.1%} of always answering "{majority["label"]}".'
        )
    if rows < THIN_HOLDOUT:
        # Half of Wilson's interval, which is not zero where every row is right.
        z = 1.96
        half = z * (accuracy * (1 - accuracy) / rows + z**2 / (4 * rows**2)) ** 0.5 / (1 + z**2 / rows)
        notes.append(
            f"Only {rows:,} rows measure the model: its accuracy is uncertain by about {100 * half:.0f} points (95 %)."
        )
    return notes
