"""How good a model is on listings with a price: streamed through workers that each load it once."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from nightprice.errors import ContractError, NightpriceError
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.shipping import ModelFiles, ship, shipped
from pipeline.datasets import Dataset
from pipeline.evaluation.metrics import Counts, summary
from pipeline.split import Split
from registry.artifact import Artifact
from transforms.contract import FEATURES, PRICE, price_category
from transforms.encode import UNKNOWN, Vocabulary, encode_table
from transforms.lift import distinct

# What evaluation needs of accepted rows.
COLUMNS = ("id", *FEATURES, PRICE.name)
# Accuracy is broken down by these.
SEGMENTS = ("neighbourhood", "room_type")
BATCH_ROWS = 65_536
# What a report calls the models of an estimator that has a story; others go by their reference.
NAMES = {"random_forest": "the notebook's forest"}

Evaluation = dict[str, Any]


class EvaluationError(NightpriceError):
    """Rows that no model can be evaluated on."""


def evaluate(artifact: Artifact, rows: ray.data.Dataset, known: Vocabulary | None = None) -> Evaluation:
    """Evaluate a model on accepted rows with the columns COLUMNS; of these, with `known`, on those that another model
    can score, too.

    The true category follows from the price by the model's own bins. Rows that the model can't score, such as those of
    a neighbourhood it never saw, are counted under `unscorable` and are in no metric. Only counts reach the driver.
    Raises EvaluationError if no row can be scored.
    """
    parts = map_tables(rows, partial(_count_batch, files=ship(artifact), known=known), batch_size=BATCH_ROWS)
    parts.set_name("evaluate")
    total = sum((Counts.from_bytes(row["counts"]) for row in parts.iter_rows()), Counts.none(len(artifact.labels)))
    if not total.rows:
        found = ", ".join(f"{reason} ({count:,})" for reason, count in total.unscorable.most_common(3))
        raise EvaluationError(
            f"{artifact.ref} can't score any of the rows: {found or 'there are none'}. Name a dataset of listings "
            "that the model knows."
        )
    return summary(total, artifact.labels)


def evaluate_dataset(
    artifact: Artifact, dataset: Dataset, split: Split | None = None, known: Vocabulary | None = None
) -> Evaluation:
    """Evaluate a model on a processed dataset: on all rows, or on the holdout rows of a split; `known` as for
    `evaluate`.

    Raises ContractError for a dataset without prices.
    """
    require_prices(dataset)
    rows = dataset.rows(COLUMNS)
    if split is not None:
        rows = map_tables(rows, partial(_holdout, split=split), batch_size=BATCH_ROWS)
    return evaluate(artifact, rows, known)


def require_prices(dataset: Dataset) -> None:
    """Raise ContractError for a dataset that holds no prices, such as one that a model has scored."""
    if "pricing" not in dataset.manifest or "model" in dataset.manifest:
        raise ContractError(
            f'"{dataset.address}" holds no prices to compare with. Name a dataset that `nightprice process` wrote.'
        )


def _holdout(table: pa.Table, split: Split) -> pa.Table:
    return table.filter(pa.array(split.is_holdout(table["id"].to_numpy())))


def count(table: pa.Table, artifact: Artifact) -> Counts:
    """Score one batch of accepted rows with prices and count how it went."""
    unknown = artifact.vocabulary.unknown(table)
    scorable = _known(table, artifact.vocabulary)
    probabilities = artifact.predict(encode_table(scorable, artifact.vocabulary))
    prices, indices = distinct(scorable[PRICE.name])
    positions = [artifact.labels.index(price_category(price, artifact.pricing)) for price in prices]
    counts = Counts.of(
        probabilities, np.array(positions, np.intp)[indices], {name: scorable[name].to_pylist() for name in SEGMENTS}
    )
    counts.unscorable = Counter({f"{name}:{UNKNOWN}": int(mask.sum()) for name, mask in unknown.items()})
    return counts


def _known(table: pa.Table, vocabulary: Vocabulary) -> pa.Table:
    """The rows that a model with this vocabulary can score."""
    bad = np.any([*vocabulary.unknown(table).values(), np.zeros(len(table), np.bool_)], axis=0)
    return table.filter(pa.array(~bad))


def _count_batch(table: pa.Table, files: "ray.ObjectRef[ModelFiles]", known: Vocabulary | None) -> pa.Table:
    rows = table if known is None else _known(table, known)
    return pa.table({"counts": pa.array([count(rows, shipped(files)).to_bytes()], pa.binary())})


def compared(others: Sequence[tuple[Artifact, Evaluation]]) -> list[dict[str, Any]]:
    """Other models on the same rows, as the manifest keeps them; `name` is for people."""
    return [
        {
            "name": NAMES.get(other.manifest["estimator"], other.ref),
            "ref": other.ref,
            "estimator": other.manifest["estimator"],
            "rows": found["rows"],
            "metrics": found["metrics"],
        }
        for other, found in others
    ]
