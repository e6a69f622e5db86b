"""The service without its transport: the same answer for one listing, many, and columns, and as in batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.predict import score
from registry.artifact import load_artifact
from serve_app.errors import InvalidRecord, RequestError
from serve_app.model.allowance import Allowance
from serve_app.model.predictor import MIN_COLUMN_ROWS, Predictor
from serve_app.model.record import input_names
from tests.support.accepted_listings import accepted_listings
from tests.support.serving.models import as_listings, boosted_model
from tests.support.serving.requests import EXAMPLE
from tests.support.tiny_model import FIRST, tiny_artifact
from transforms.listings import CONTRACT

LISTINGS = as_listings(accepted_listings(MIN_COLUMN_ROWS, seed=9))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(boosted_model(tmp_path_factory.mktemp("model")), CONTRACT)


def columns_of(table: pa.Table) -> dict[str, pa.Array]:
    inputs = table.drop_columns(["price", CONTRACT.label_name])
    return {name: inputs[name].combine_chunks() for name in inputs.column_names}


def probabilities_of(answers: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([list(answer["probabilities"].values()) for answer in answers], np.float32)


def test_the_challenge_is_answered(predictor: Predictor) -> None:
    answer = predictor.predict(EXAMPLE)

    assert list(answer) == ["id", "price_category", "probabilities", "model"]
    assert answer["id"] == 1001
    assert answer["model"] == f"listing-price@{FIRST}"
    assert list(answer["probabilities"]) == ["Low", "Mid", "High", "Lux"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["price_category"] == max(answer["probabilities"], key=answer["probabilities"].get)


def test_one_many_columns_and_batch_agree_to_the_last_bit(predictor: Predictor) -> None:
    table = accepted_listings(3_000, seed=5)
    batch = score(table, predictor.artifact, predictor.encoder)
    expected = np.column_stack([batch[f"probability_{label}"].to_numpy() for label in CONTRACT.label.labels])
    listings = as_listings(table)

    assert np.array_equal(probabilities_of([predictor.predict(listing) for listing in listings[:500]]), expected[:500])
    many = predictor.predict_many(listings)
    assert np.array_equal(probabilities_of(many), expected)
    assert [answer["id"] for answer in many] == table["id"].to_pylist()
    assert [answer[CONTRACT.label_name] for answer in many] == batch[CONTRACT.label_name].to_pylist()
    scored = predictor.score_columns(columns_of(table), len(table))
    assert np.array_equal(scored.probabilities, expected)
    assert predictor.labels_of(scored.probabilities).to_pylist() == batch[CONTRACT.label_name].to_pylist()


def test_a_bad_listing_never_fails_its_neighbours(predictor: Predictor) -> None:
    wrong = {**EXAMPLE, "id": 7, "room_type": "Flat"}

    first, second, third, fourth = predictor.predict_many([EXAMPLE, wrong, 5, {**EXAMPLE, "id": 8}])

    assert first == predictor.predict(EXAMPLE)
    assert second["id"] == 7
    assert second["error"]["problems"][0]["reason"] == "room_type:not_allowed"
    assert third["id"] is None
    assert (fourth["id"], fourth["probabilities"]) == (8, first["probabilities"])


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**53 + 1, 2**60, 2**63, 10**400, 1e300, -0.0, 4.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from([[], ["TV"], ["TV", None], [1], "x" * 1_001, {}, ["x" * 1_001]]),
)
CHANGES = st.tuples(
    st.integers(0, MIN_COLUMN_ROWS - 1), st.sampled_from([*input_names(CONTRACT), "made_up", ""]), ANYTHING
)


@settings(max_examples=300, deadline=None)
@example([(3, "latitude", True)], False)
@example([(3, "amenities", ["TV", None])], False)
@example([(3, "id", 4.0), (4, "id", 2**60)], False)
@example([(3, "made_up", None)], False)
@given(st.lists(CHANGES, max_size=6), st.booleans())
def test_records_that_are_read_together_are_answered_as_each_by_itself(
    predictor: Predictor, changes: list[tuple[int, str, Any]], without_one: bool
) -> None:
    records: list[Any] = [dict(listing) for listing in LISTINGS]
    for row, name, value in changes:
        records[row][name] = value
    if without_one:
        records[5] = "no object"

    together = predictor.predict_many(records)

    assert together == predictor._predict_rows(records, 0, Allowance())


@pytest.mark.parametrize("name", [item.name for item in CONTRACT.inputs if item.low is not None])
def test_numbers_at_their_bounds_are_read_together_as_each_by_itself(predictor: Predictor, name: str) -> None:
    item = CONTRACT.by_name[name]
    assert item.low is not None
    assert item.high is not None
    for value in (item.low, item.high, item.low - 1, item.high + 1):
        records = [{**listing, name: value} for listing in LISTINGS]

        assert predictor.predict_many(records) == predictor._predict_rows(records, 0, Allowance()), value


def test_many_records_are_read_together_but_those_that_are_wrong(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[int] = []
    by_row = predictor._predict_rows

    def noted(records: Sequence[Any], told: int, allowance: Allowance) -> list[dict[str, Any]]:
        alone.append(len(records))
        return by_row(records, told, allowance)

    monkeypatch.setattr(predictor, "_predict_rows", noted)
    wrong = {**LISTINGS[0], "room_type": "Flat"}

    answers = predictor.predict_many([*LISTINGS, wrong])

    assert alone == [1]
    assert [("error" in answer) for answer in answers] == [False] * len(LISTINGS) + [True]


def test_wrong_rows_of_columns_have_the_reasons_of_single_listings(predictor: Predictor) -> None:
    listings = [
        EXAMPLE,
        {**EXAMPLE, "room_type": "Flat"},
        {**EXAMPLE, "neighbourhood": "Atlantis", "beds": 1000.0},
        {**EXAMPLE, "id": None},
        {**EXAMPLE, "latitude": float("nan"), "tv": 5},
        {**EXAMPLE, "neighbourhood": "Bronx", "amenities": ["Wifi"]},
    ]
    names = dict.fromkeys(name for listing in listings for name in listing)
    columns = {name: pa.array([listing.get(name) for listing in listings]) for name in names}

    scored = predictor.score_columns(columns, len(listings))

    found: list[set[str]] = [set() for _ in listings]
    for problem, mask in scored.read.problems:
        for row in np.flatnonzero(mask):
            found[row].add(problem.reason)
    for listing, probabilities, reasons in zip(listings, scored.probabilities, found, strict=True):
        if reasons:
            with pytest.raises(InvalidRecord) as caught:
                predictor.predict(listing)
            assert {problem.reason for problem in caught.value.problems} == reasons
            assert np.isnan(probabilities).all()
        else:
            assert np.array_equal(probabilities, probabilities_of([predictor.predict(listing)])[0])
    assert [bool(reasons) for reasons in found] == [False, True, True, True, True, False]


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("price", pa.array([1.0]), "price:unknown_field"),
        ("beds", pa.array(["2"]), "beds:unparseable"),
        ("room_type", pa.array([1]), "room_type:unparseable"),
        ("beds", pa.array([[1]]), "beds:unparseable"),
        ("tv", pa.array(["1"]), "tv:unparseable"),
        ("amenities", pa.array(["TV"]), "amenities:unparseable"),
        ("id", None, "id:missing"),
    ],
)
def test_a_wrong_column_is_refused_as_a_whole(
    predictor: Predictor, name: str, column: pa.Array | None, reason: str
) -> None:
    columns = {key: pa.array([value]) for key, value in EXAMPLE.items()} | {name: column}

    with pytest.raises(InvalidRecord) as caught:
        predictor.score_columns({key: value for key, value in columns.items() if value is not None}, 1)
    assert [problem.reason for problem in caught.value.problems] == [reason]


def test_no_listings_are_no_error(predictor: Predictor) -> None:
    assert predictor.predict_many([]) == []
    assert predictor.score_columns(
        {key: pa.array([value])[:0] for key, value in EXAMPLE.items()}, 0
    ).probabilities.shape == (0, 4)


def test_contributions_add_up_to_the_probabilities(predictor: Predictor) -> None:
    answer = predictor.explain(EXAMPLE)

    assert {key: answer[key] for key in ("id", "price_category", "probabilities", "model")} == predictor.predict(
        EXAMPLE
    )
    assert list(answer["contributions"]["Low"]) == list(CONTRACT.features)
    scores = np.array(
        [answer["base"][label] + sum(answer["contributions"][label].values()) for label in CONTRACT.label.labels]
    )
    assert np.exp(scores) / np.exp(scores).sum() == pytest.approx(list(answer["probabilities"].values()), abs=1e-5)


def test_a_model_without_trees_says_so(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="contributions") as caught:
        Predictor(load_artifact(tiny_artifact(tmp_path / "tiny")), CONTRACT).explain(EXAMPLE)
    assert caught.value.status == 501
