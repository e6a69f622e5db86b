"""The service without its transport: listings in, predictions out, by one version of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from registry.artifact import Artifact
from serve_app.errors import InvalidListing
from serve_app.model.columns import ReadTable, read_columns
from serve_app.model.explain import Explainer, load_explainer, no_explanation
from serve_app.model.record import read_listing
from transforms.contract import CATEGORY, FEATURES
from transforms.encode import Matrix, encode_record, encode_table

# A block of rows that a thread scores at once: bounds memory and lets other requests in between.
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Scored:
    """Columns that were scored; wrong rows have NaN probabilities."""

    read: ReadTable
    probabilities: Matrix
    """float32 [n, labels]"""
    wrong: npt.NDArray[np.bool_]


class Predictor:
    """One model version, ready to answer. Safe to use from several threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError if the model can't explain what it scores, though it should."""
        self.artifact = artifact
        self.explainer: Explainer | None = load_explainer(artifact)

    @cached_property
    def ref(self) -> str:
        return self.artifact.ref

    def predict(self, listing: Any) -> dict[str, Any]:
        """The answer for one listing: id, category, probabilities, model. Raises InvalidListing."""
        record = read_listing(listing, self.artifact.vocabulary)
        return self._answer(record["id"], self._score(self._vector(record)[np.newaxis])[0].tolist())

    def predict_many(self, listings: Sequence[Any]) -> list[dict[str, Any]]:
        """One answer or `{"id", "error"}` for each listing, in order."""
        answers: list[dict[str, Any] | None] = [None] * len(listings)
        matrix = np.empty((len(listings), len(FEATURES)), np.float32)
        places: list[tuple[int, int]] = []
        for position, listing in enumerate(listings):
            try:
                record = read_listing(listing, self.artifact.vocabulary)
                matrix[len(places)] = self._vector(record)
                places.append((position, record["id"]))
            except InvalidListing as error:
                answers[position] = {"id": _id_of(listing), "error": error.as_json()}
        shares = self._score(matrix[: len(places)]).tolist()
        for (position, number), row in zip(places, shares, strict=True):
            answers[position] = self._answer(number, row)
        return [answer for answer in answers if answer is not None]

    def explain(self, listing: Any) -> dict[str, Any]:
        """The answer for one listing with what every field contributed. Raises InvalidListing, or RequestError 501."""
        record = read_listing(listing, self.artifact.vocabulary)
        if self.explainer is None:
            raise no_explanation(self.artifact)
        vector = self._vector(record)
        answer = self._answer(record["id"], self._score(vector[np.newaxis])[0].tolist())
        return {**answer, **self.explainer.explain(vector)}

    def score_columns(self, columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> Scored:
        """Score columns named as the fields of a listing. Raises InvalidListing for a column that is wrong as a
        whole.
        """
        read = read_columns(columns, rows, self.artifact.vocabulary)
        wrong = read.wrong()
        if not wrong.any():
            return Scored(read, self._score(encode_table(read.values, self.artifact.vocabulary)), wrong)
        right = read.values.filter(pa.array(~wrong))
        probabilities = np.full((rows, len(self.artifact.labels)), np.nan, np.float32)
        probabilities[~wrong] = self._score(encode_table(right, self.artifact.vocabulary))
        return Scored(read, probabilities, wrong)

    def categories(self, probabilities: Matrix) -> pa.Array:
        """The most probable category of each row."""
        best = probabilities.argmax(axis=1) if len(probabilities) else np.empty(0, np.int64)
        return pa.array(self.artifact.labels, pa.string()).take(pa.array(best))

    def _vector(self, record: dict[str, Any]) -> Matrix:
        return encode_record(record, self.artifact.vocabulary)

    def _score(self, matrix: Matrix) -> Matrix:
        if len(matrix) <= BLOCK_ROWS:
            return self.artifact.predict(matrix)
        return np.concatenate(
            [self.artifact.predict(matrix[start : start + BLOCK_ROWS]) for start in range(0, len(matrix), BLOCK_ROWS)]
        )

    def _answer(self, number: int, shares: list[float]) -> dict[str, Any]:
        labels = self.artifact.labels
        return {
            "id": number,
            CATEGORY: labels[shares.index(max(shares))],
            "probabilities": dict(zip(labels, shares, strict=True)),
            "model": self.ref,
        }


def _id_of(listing: Any) -> int | None:
    """The id as it was sent, if it is one, so that a caller can tell which listing is meant."""
    number = listing.get("id") if isinstance(listing, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**63 else None
