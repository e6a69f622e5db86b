"""Records as Arrow columns in, their scores as Arrow columns out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from serve_app.errors import InvalidRecord, RequestError
from serve_app.model.allowance import Allowance
from serve_app.model.columns import check_types
from serve_app.model.predictor import Predictor, Scored
from serve_app.protocols.arrow_ipc import write_stream
from transforms.clean import lists_of_reasons
from transforms.scored import MODEL, scored_columns

PROBLEMS = "problems"


@dataclass(frozen=True)
class ScoredStream:
    """The results as an Arrow stream, and their counts for metrics."""

    content: bytes
    labels: Counter[str]
    reasons: Counter[str]


def score_table(table: pa.Table, predictor: Predictor, allowance: Allowance | None = None) -> ScoredStream:
    """Records to an Arrow stream of results, a row each, in order: key, label, probabilities, model, problems.

    The columns are the fields of a record; `problems` is null for a row that was scored, else a list of
    `field:problem`. Raises RequestError 422 for a column that is wrong as a whole, 408 and 413 beyond the allowance.
    """
    columns = dict(zip(table.schema.names, table.columns, strict=True))
    with _wrong_columns():
        scored = predictor.score_columns(columns, table.num_rows, allowance)
    content = write_stream(scored_table(scored, predictor))
    return ScoredStream(content, count_labels(scored, predictor), count_reasons(scored))


def check_columns(types: Mapping[str, pa.DataType], predictor: Predictor) -> None:
    """Raises RequestError 422 for columns that can't be scored, whatever they hold."""
    with _wrong_columns():
        check_types(types, predictor.reader)


@contextmanager
def _wrong_columns() -> Iterator[None]:
    """What is wrong with columns as a whole becomes a RequestError of this protocol."""
    try:
        yield
    except InvalidRecord as error:
        raise RequestError(422, "invalid_columns", f"The columns don't fit: {error}", error.problems) from None


def scored_table(scored: Scored, predictor: Predictor) -> pa.Table:
    """The results as a table."""
    contract, rows = predictor.contract, len(scored.wrong)
    keys = scored.read.values[contract.key]
    labels = predictor.artifact.labels
    reasons = [(problem.reason, mask) for problem, mask in scored.read.problems]
    return pa.table(
        {
            **scored_columns(contract, labels, keys, scored.probabilities, scored.wrong),
            MODEL: pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [predictor.ref]),
            PROBLEMS: lists_of_reasons(reasons, rows),
        }
    )


def count_labels(scored: Scored, predictor: Predictor) -> Counter[str]:
    """How many rows got which label."""
    labels = predictor.artifact.labels
    counts = np.bincount(scored.probabilities[~scored.wrong].argmax(axis=1), minlength=len(labels))
    return Counter({label: int(count) for label, count in zip(labels, counts, strict=True) if count})


def count_reasons(scored: Scored) -> Counter[str]:
    """How many rows were refused for which `field:problem`."""
    return Counter({problem.reason: int(mask.sum()) for problem, mask in scored.read.problems})
