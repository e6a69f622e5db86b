"""From raw text to HTTP: what batch accepts is answered as batch scores it, what batch rejects is refused for the same
reasons.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.predict import score
from serve_app.model.allowance import Allowance
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import ModelReloader
from tests.support.contracts import LISTINGS
from tests.support.generated_rows import raw_rows
from tests.support.raw_listings import LISTING, table_of
from tests.support.reference_clean import clean_row, is_nothing
from tests.support.serving.client import Client
from transforms.clean import clean
from transforms.contract import Field
from transforms.listings import CONTRACT
from transforms.scored import probability_column

Row = Mapping[str, str | None]


def assert_parity(raw: Sequence[Row], client: Client, predictor: Predictor) -> None:
    """Every raw row ends the same in batch and over HTTP; else the row's field or column is named."""
    # A list that can't be read is missing in batch; HTTP refuses it.
    raw = [row for row in raw if "amenities:unparseable" not in clean_row(row, CONTRACT).warnings]
    cleaned = clean(table_of(raw), CONTRACT, encoder=predictor.encoder)
    batch = score(cleaned.accepted, predictor.artifact, predictor.encoder)
    answers = post(client, cleaned.accepted.to_pylist())
    for name in (CONTRACT.key, CONTRACT.label_name):
        assert [answer.get(name, answer) for answer in answers] == batch[name].to_pylist(), f"{name} differs"
    for label in predictor.artifact.labels:
        online = np.array([answer["probabilities"][label] for answer in answers], np.float32)
        assert np.array_equal(online, batch[probability_column(label)].to_numpy()), (
            f"the probability of {label} differs"
        )

    rejected = cleaned.rejected.to_pylist()
    refusals = post(client, [as_typed_json(row) for row in rejected])
    for row, refusal in zip(rejected, refusals, strict=True):
        assert "error" in refusal, f"{row['reasons']} is answered over HTTP"
        assert sorted(problem["reason"] for problem in refusal["error"]["problems"]) == sorted(row["reasons"])


def as_typed_json(row: Row) -> dict[str, Any]:
    """A raw row as a caller would send it: what can be read as a value, what can't as its text.

    An optional text that can't be read is left out: batch takes it for missing, HTTP would refuse it. So is a word for
    nothing: JSON has null.
    """
    values = {item.name: _typed(item, row) for item in CONTRACT.inputs if not item.from_list}
    return {name: value for name, value in values.items() if value is not None}


def _typed(item: Field, row: Row) -> Any:
    raw = next((text for name in item.columns if not is_nothing(text := row[name])), None)
    try:
        return None if raw is None else item.read(raw)
    except ValueError:
        return raw if item.required else None


def post(client: Client, listings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = client.post("/v1/predict/batch", {CONTRACT.records: listings})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


@settings(max_examples=100, deadline=None)
@given(st.lists(raw_rows(LISTINGS), max_size=8))
def test_http_answers_as_batch_does(client: Client, reloader: ModelReloader, raw: list[Row]) -> None:
    assert_parity(raw, client, reloader.predictor)


GOOD = {**LISTING, "neighbourhood_group_cleansed": "Brooklyn"}
WRONG = {
    "id": ("0", "id:out_of_range"),
    "neighbourhood_group_cleansed": ("Atlantis", "neighbourhood:unknown"),
    "room_type": ("Castle", "room_type:not_allowed"),
    "accommodates": ("4.5", "accommodates:unparseable"),
    "bathrooms_text": ("99 baths", "bathrooms:out_of_range"),
    "latitude": (" ", "latitude:missing"),
}


@pytest.mark.parametrize("column", WRONG)
def test_every_kind_of_rejection_has_the_same_reason(client: Client, reloader: ModelReloader, column: str) -> None:
    """What the generated rows may or may not have in them."""
    text, reason = WRONG[column]
    raw = [GOOD, {**GOOD, column: text}]

    assert clean(table_of(raw), CONTRACT, encoder=reloader.predictor.encoder).rejected["reasons"].to_pylist() == [
        [reason]
    ]
    assert_parity(raw, client, reloader.predictor)


def test_a_difference_is_found(client: Client, reloader: ModelReloader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parity test itself is tested: numbers that HTTP reads otherwise than batch must be caught."""
    genuine = Predictor.predict_many

    def with_more_guests(self: Predictor, records: Any, allowance: Allowance) -> Any:
        more = [{**record, "accommodates": record["accommodates"] + 1} for record in records]
        return genuine(self, more, allowance)

    monkeypatch.setattr(Predictor, "predict_many", with_more_guests)

    with pytest.raises(AssertionError, match="differs"):
        assert_parity([{**GOOD, "accommodates": str(guests)} for guests in range(1, 8)], client, reloader.predictor)
