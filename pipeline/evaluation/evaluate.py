"""How good a model is on rows with a target: streamed through workers that each load it once."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import ray

from nightprice.errors import ContractError, NightpriceError
from pipeline import progress
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.session import on_ray
from pipeline.cluster.shipping import ModelFiles, ship, shipped
from pipeline.datasets import Dataset
from pipeline.evaluation.metrics import Counts, summary
from pipeline.split import Split
from pipeline.train import estimators
from registry.artifact import Artifact
from registry.manifest import Comparison, Evaluation
from registry.replacement import some
from transforms.contract import MISSING, UNKNOWN, Contract
from transforms.encode import Encoder, Vocabulary
from transforms.lift import distinct

BATCH_ROWS = 65_536


class EvaluationError(NightpriceError):
    """Rows that no model can be evaluated on."""


def evaluate(
    artifact: Artifact,
    rows: ray.data.Dataset,
    contract: Contract,
    beside: Artifact | None = None,
    expected: int | None = None,
) -> Evaluation:
    """Evaluate a model on accepted rows with the columns `evaluation_columns`.

    With `beside`, another model, only on the rows that both can score. The true label follows from
    the target by the model's own bands. Rows that the model can't score, such as those with a value it never saw, are
    counted under `unscorable` and are in no metric. Only counts reach the driver. `expected` is the number of rows,
    where it is known.
    Raises EvaluationError if no row can be scored, ArtifactError for a model of another contract.
    """
    artifact.require(contract)
    known = beside.vocabulary if beside else None
    count = partial(_count_batch, files=ship(artifact), contract=contract, known=known)
    parts = map_tables(rows, count, batch_size=BATCH_ROWS)
    parts.set_name("evaluate")
    total = Counts.none(len(artifact.labels))
    progress.begin(f"evaluating {artifact.ref}", rows=expected)
    for row in parts.iter_rows():
        part = Counts.from_bytes(row["counts"])
        total += part
        progress.advance(rows=part.rows + part.unscorable.total())
    if not total.rows:
        raise _nothing_scored(artifact, beside, contract, total.unscorable)
    return summary(total, artifact.label)


def _nothing_scored(
    artifact: Artifact, beside: Artifact | None, contract: Contract, unscorable: Counter[str]
) -> EvaluationError:
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in unscorable.most_common(3))
    if beside is not None and not reasons:
        return EvaluationError(
            f"{beside.ref} can't score any of the rows that {artifact.ref} is to be compared with it on: it knows "
            f"{_known_values(beside, contract)}. Train models of other {contract.records} under a model_name of their "
            "own."
        )
    return EvaluationError(
        f"{artifact.ref} can't score any of the rows: {reasons or 'there are none'}. It knows "
        f"{_known_values(artifact, contract)}: name a dataset of such {contract.records}, or another model."
    )


def _known_values(artifact: Artifact, contract: Contract) -> str:
    """What a model knows of each field whose unknown values it can't score, for a message."""
    return "; ".join(f"{name} {some(artifact.vocabulary[name])}" for name in contract.strict) or "all values"


def evaluation_columns(contract: Contract) -> tuple[str, ...]:
    """The columns of accepted rows that evaluation reads."""
    return (contract.key, *contract.features, contract.target)


@on_ray
def evaluate_dataset(
    artifact: Artifact, dataset: Dataset, split: Split | None = None, beside: Artifact | None = None
) -> Evaluation:
    """Evaluate a model on a processed dataset: on all rows, or on the holdout rows of a split; else as `evaluate`.

    Raises ContractError for a dataset without targets.
    """
    require_targets(dataset)
    contract = dataset.contract
    rows = dataset.rows(evaluation_columns(contract))
    if split is not None:
        rows = map_tables(rows, partial(_holdout, split=split, key=contract.key), batch_size=BATCH_ROWS)
    return evaluate(artifact, rows, contract, beside, dataset.manifest["rows"]["accepted"] if split is None else None)


def require_targets(dataset: Dataset) -> None:
    """Raise ContractError for a dataset without targets, such as one that a model has scored."""
    if "model" in dataset.manifest:
        raise ContractError(
            f'"{dataset.address}" has no "{dataset.contract.target}" to compare with. '
            "Name a dataset that `nightprice process` wrote."
        )


def _holdout(table: pa.Table, split: Split, key: str) -> pa.Table:
    return table.filter(pa.array(split.is_holdout(table[key].to_numpy())))


def count(table: pa.Table, artifact: Artifact, contract: Contract) -> Counts:
    """Score one batch of accepted rows with targets and count how it went."""
    encoder = Encoder(contract, artifact.vocabulary)
    unknown = encoder.unknown(table)
    scorable = _known(table, encoder)
    probabilities = artifact.predict(encoder.table(scorable))
    targets, indices = distinct(scorable[contract.target])
    positions = [artifact.labels.index(artifact.label.label_of(target)) for target in targets]
    segments = {name: scorable[name].fill_null(MISSING).to_pylist() for name in contract.breakdown}
    counts = Counts.of(probabilities, np.array(positions, np.intp)[indices], segments)
    counts.unscorable = Counter({f"{name}:{UNKNOWN}": int(mask.sum()) for name, mask in unknown.items()})
    return counts


def _known(table: pa.Table, encoder: Encoder) -> pa.Table:
    """The rows that the encoder's model can score."""
    bad = np.any([*encoder.unknown(table).values(), np.zeros(len(table), np.bool_)], axis=0)
    return table.filter(pa.array(~bad))


def _count_batch(
    table: pa.Table, files: "ray.ObjectRef[ModelFiles]", contract: Contract, known: Vocabulary | None
) -> pa.Table:
    rows = table if known is None else _known(table, Encoder(contract, known))
    return pa.table({"counts": pa.array([count(rows, shipped(files), contract).to_bytes()], pa.binary())})


def compared(others: Sequence[tuple[Artifact, Evaluation]]) -> list[Comparison]:
    """Other models on the same rows, as the manifest keeps them; `name` is for people."""
    return [
        {
            "name": estimators.title_of(other.manifest["estimator"]) or other.ref,
            "ref": other.ref,
            "estimator": other.manifest["estimator"],
            "rows": evaluation["rows"],
            "metrics": evaluation["metrics"],
        }
        for other, evaluation in others
    ]
