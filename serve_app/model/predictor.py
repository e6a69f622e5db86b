"""The service without its transport: records in, predictions out, by one version of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from registry.artifact import Artifact
from serve_app.errors import InvalidRecord, RequestError
from serve_app.model.allowance import Allowance
from serve_app.model.columns import Column, ReadTable, columns_of, read_columns
from serve_app.model.explain import Explainer, load_explainer, no_explanation
from serve_app.model.record import RecordReader
from transforms.contract import Contract
from transforms.encode import Encoder, Matrix
from transforms.lift import Mask
from transforms.scored import most_probable, most_probable_label

# A block of rows that a thread scores at once: bounds memory and lets other requests in between.
BLOCK_ROWS = 4096
# From so many records on, columns cost less than records by themselves.
MIN_COLUMN_ROWS = 64
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
        allowance = allowance or Allowance()
        answers: list[dict[str, Any]] = []
        told = 0
        for start in range(0, len(records), BLOCK_ROWS):
            block = records[start : start + BLOCK_ROWS]
            columns = columns_of(block, self.reader) if len(block) >= MIN_COLUMN_ROWS else None
            found = None if columns is None else self._predict_columns(block, columns, told, allowance)
            if found is None:
                found = self._predict_rows(block, told, allowance)
            told += sum(len(answer["error"]["problems"]) for answer in found if "error" in answer)
            answers += found
        return answers

    def _predict_columns(
        self, records: Sequence[Any], columns: Mapping[str, Column], told: int, allowance: Allowance
    ) -> list[dict[str, Any]] | None:
        """As `predict_many`, the right records together; None for columns that are wrong, or too many, as a whole."""
        try:
            read = read_columns(columns, len(records), self.reader, allowance)
        except RequestError as error:
            if error.status == HTTPStatus.REQUEST_TIMEOUT:
                raise
            return None
        scored = self._score_read(read, allowance)
        keys, labels = read.values[self._key].to_pylist(), self.labels_of(scored.probabilities).to_pylist()
        by_label = map(dict, map(zip, repeat(self._labels), scored.probabilities.tolist()))
        ref = self.ref
        answers = [
            {self._key: key, self._label: label, "probabilities": found, "model": ref}
            for key, label, found in zip(keys, labels, by_label, strict=True)
        ]
        for position in np.flatnonzero(scored.wrong).tolist():
            (answers[position],) = self._predict_rows([records[position]], told, allowance)
            told += len(answers[position].get("error", {}).get("problems", ()))
        return answers

    def _predict_rows(self, records: Sequence[Any], told: int, allowance: Allowance) -> list[dict[str, Any]]:
        """As `predict_many`, each read by itself; `told` problems are in the answer already."""
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
        found = self._score(matrix[: len(scored)], allowance).tolist() if scored else []
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
        for problem, mask in read.problems:
            allowance.spend(problem.size_in_columns * int(mask.sum()))
        return self._score_read(read, allowance)

    def _score_read(self, read: ReadTable, allowance: Allowance) -> Scored:
        wrong = read.wrong()
        if not wrong.any():
            return Scored(read, self._score(self.encoder.table(read.values), allowance), wrong)
        right = read.values.filter(pa.array(~wrong))
        probabilities = np.full((len(wrong), len(self._labels)), np.nan, np.float32)
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
