"""The service without its transport: records in, predictions out, by one version of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from registry.artifact import Artifact
from serve_app.errors import InvalidRecord
from serve_app.model.allowance import Allowance
from serve_app.model.columns import Column, ReadTable, read_columns
from serve_app.model.explain import Explainer, load_explainer, no_explanation
from serve_app.model.record import RecordReader
from transforms.contract import Contract
from transforms.encode import Encoder, Matrix
from transforms.lift import Mask
from transforms.scored import most_probable, most_probable_label

# A block of rows that a thread scores at once: bounds memory and lets other requests in between.
BLOCK_ROWS = 4096
# Records between two looks at the clock: about 2 ms of work.
RECORDS_PER_CHECK = 64


@dataclass(frozen=True)
class Scored:
    """Columns that were scored."""

    read: ReadTable
    probabilities: Matrix
    """float32 [n, labels]; NaN in wrong rows."""
    wrong: Mask
    """[n]"""


class Predictor:
    """One model version, ready to answer. Safe to use from several threads."""

    def __init__(self, artifact: Artifact, contract: Contract) -> None:
        """Raises ArtifactError if the model is of another contract, or can't explain what it scores, though it
        should.
        """
        artifact.require(contract)
        self.artifact, self.contract = artifact, contract
        self.encoder = Encoder(contract, artifact.vocabulary)
        self.reader = RecordReader(self.encoder)
        self.explainer: Explainer | None = load_explainer(artifact)
        self._key, self._label, self._labels = contract.key, contract.label_name, artifact.labels

    @cached_property
    def ref(self) -> str:
        return self.artifact.ref

    def predict(self, record: Any) -> dict[str, Any]:
        """The answer for one record, a JSON value: its key, label, probabilities, model. Raises InvalidRecord.

        Key and label are called as the contract calls them: `{"id": 1001, "delay": "long", "probabilities": {"none":
        0.2, "long": 0.8}, "model": "flight-delay@20261123T134500Z-1a2b3c"}`.
        """
        read = self.reader.read(record)
        return self._answer(read.get(self._key), self._score(self.encoder.record(read)[np.newaxis])[0].tolist())

    def predict_many(self, records: Sequence[Any], allowance: Allowance | None = None) -> list[dict[str, Any]]:
        """One answer for each record, in order; for a wrong one its key and `error`.

        Raises RequestError 408 and 413 beyond the allowance.
        """
        allowance, told = allowance or Allowance(), 0
        answers: list[dict[str, Any]] = []
        matrix = np.empty((len(records), len(self.contract.features)), np.float32)
        scored: list[dict[str, Any]] = []
        for position, record in enumerate(records):
            if position % RECORDS_PER_CHECK == 0:
                allowance.check()
            try:
                read = self.reader.read(record, told)
            except InvalidRecord as error:
                told += len(error.problems)
                allowance.spend(sum(problem.size for problem in error.problems))
                answers.append({self._key: self._key_of(record), "error": error.as_json()})
            else:
                matrix[len(scored)] = self.encoder.record(read)
                answers.append({self._key: read.get(self._key)})
                scored.append(answers[-1])
        found = self._score(matrix[: len(scored)], allowance).tolist()
        for answer, probabilities in zip(scored, found, strict=True):
            answer.update(self._answer(answer[self._key], probabilities))
        return answers

    def explain(self, record: Any) -> dict[str, Any]:
        """The answer for one record with what every field contributed. Raises InvalidRecord, or RequestError 501."""
        read = self.reader.read(record)
        if self.explainer is None:
            raise no_explanation(self.artifact)
        vector = self.encoder.record(read)
        answer = self._answer(read.get(self._key), self._score(vector[np.newaxis])[0].tolist())
        return {**answer, **self.explainer.explain(vector)}

    def score_columns(self, columns: Mapping[str, Column], rows: int, allowance: Allowance | None = None) -> Scored:
        """Score columns named as the fields of a record, each with `rows` values.

        Raises InvalidRecord for a column that is wrong as a whole, RequestError 408 and 413 beyond the allowance.
        """
        allowance = allowance or Allowance()
        read = read_columns(columns, rows, self.reader, allowance)
        wrong = read.wrong()
        if not wrong.any():
            return Scored(read, self._score(self.encoder.table(read.values), allowance), wrong)
        right = read.values.filter(pa.array(~wrong))
        probabilities = np.full((rows, len(self._labels)), np.nan, np.float32)
        probabilities[~wrong] = self._score(self.encoder.table(right), allowance)
        return Scored(read, probabilities, wrong)

    def labels_of(self, probabilities: Matrix) -> pa.Array:
        """The most probable label of each row."""
        return most_probable(self._labels, probabilities)

    def _score(self, matrix: Matrix, allowance: Allowance | None = None) -> Matrix:
        if len(matrix) <= BLOCK_ROWS:
            return self.artifact.predict(matrix)
        blocks = []
        for start in range(0, len(matrix), BLOCK_ROWS):
            if allowance:
                allowance.check()
            blocks.append(self.artifact.predict(matrix[start : start + BLOCK_ROWS]))
        return np.concatenate(blocks)

    def _answer(self, key: int | None, probabilities: list[float]) -> dict[str, Any]:
        return {
            self._key: key,
            self._label: most_probable_label(self._labels, probabilities),
            "probabilities": dict(zip(self._labels, probabilities, strict=True)),
            "model": self.ref,
        }

    def _key_of(self, record: Any) -> int | None:
        """The key as it was sent, if it is one, so that a caller can tell which record is meant."""
        key = record.get(self._key) if isinstance(record, dict) else None
        return key if isinstance(key, int) and not isinstance(key, bool) and abs(key) < 2**63 else None
