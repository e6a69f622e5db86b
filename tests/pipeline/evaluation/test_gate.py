"""The gate: both models on the same rows, by the rule, with a reason for the record."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from nightprice.errors import UsageError
from pipeline.evaluation.evaluate import EvaluationError
from pipeline.evaluation.gate import compare, decide
from pipeline.settings import GateSettings, Settings
from registry.artifact import Artifact, load_artifact
from tests.support.accepted_listings import VERSION, accepted_listings, write_dataset
from tests.support.tiny_model import FIRST, SECOND, tiny_artifact
from transforms.listings import CONTRACT


def evaluation(unscorable: Any = None, **metrics: Any) -> Any:
    return {"rows": 100, "metrics": metrics, "unscorable": unscorable or {}}


@pytest.mark.parametrize(
    ("metric", "challenger", "champion", "promote"),
    [
        ("log_loss", 0.70, 0.72, True),
        ("log_loss", 0.72, 0.70, False),
        ("log_loss", 0.70, 0.70, False),
        ("accuracy", 0.71, 0.70, True),
        ("accuracy", 0.69, 0.70, False),
        ("ece", 0.02, 0.03, True),
        ("ordinal_mae", 0.4, 0.3, False),
    ],
)
def test_better_depends_on_the_metric(metric: Any, challenger: float, champion: float, promote: bool) -> None:
    decision = compare(
        evaluation(**{metric: challenger}), evaluation(**{metric: champion}), GateSettings(metric=metric)
    )
    assert decision.promote is promote
    assert f"{metric} {challenger:.4f} against {champion:.4f} on the same 100 holdout rows" in decision.reason


def test_a_small_improvement_may_not_be_enough() -> None:
    rule = GateSettings(metric="accuracy", min_improvement=0.01)
    assert not compare(evaluation(accuracy=0.705), evaluation(accuracy=0.70), rule).promote
    assert compare(evaluation(accuracy=0.715), evaluation(accuracy=0.70), rule).promote


def test_fewer_scorable_rows_are_no_way_to_win() -> None:
    narrow = evaluation(log_loss=0.1, unscorable={"neighbourhood:unknown": 10})
    decision = compare(narrow, evaluation(log_loss=0.7), GateSettings())
    assert not decision.promote
    assert "can't score all holdout rows that the champion can: neighbourhood:unknown (10)" in decision.reason


def test_more_scorable_rows_are_no_way_to_lose() -> None:
    champion = evaluation(log_loss=0.7, unscorable={"neighbourhood:unknown": 10})
    decision = compare(evaluation(log_loss=0.1), champion, GateSettings())
    assert decision.promote
    assert "the challenger alone can score neighbourhood:unknown (10)" in decision.reason


def test_an_undefined_metric_is_an_error() -> None:
    with pytest.raises(UsageError, match="roc_auc is not defined"):
        compare(evaluation(roc_auc=None), evaluation(roc_auc=0.5), GateSettings(metric="roc_auc"))


def model(folder: Path, version: str, seed: int, data: str, **manifest: Any) -> Artifact:
    dataset = {"uri": data, "version": VERSION, "rows": 500}
    split = {"kind": "hash", "holdout_share": 0.5}
    return load_artifact(
        tiny_artifact(folder / version, version, seed, **{"dataset": dataset, "split": split, **manifest})
    )


def test_the_first_model_is_promoted(tmp_path: Path) -> None:
    decision = decide(model(tmp_path, FIRST, 0, "nowhere"), None, Settings())
    assert decision.promote
    assert "nothing is in force there yet" in decision.reason


@pytest.mark.parametrize(("accuracy", "promote"), [(0.52, True), (0.5, False), (0.4, False)])
def test_the_first_model_must_beat_the_majority(tmp_path: Path, accuracy: float, promote: bool) -> None:
    majority = {"label": "Mid", "accuracy": 0.5, "macro_f1": 0.2}
    found = {"rows": 900, "metrics": {"accuracy": accuracy}, "majority": majority}

    decision = decide(model(tmp_path, FIRST, 0, "nowhere", evaluation=found), None, Settings())

    assert decision.promote is promote
    assert f'accuracy {accuracy:.4f} against 0.5000 of always answering "Mid", on 900 holdout rows' in decision.reason


def test_the_champion_does_not_replace_itself(tmp_path: Path) -> None:
    champion = model(tmp_path, FIRST, 0, "nowhere")
    assert not decide(champion, champion, Settings()).promote


def test_models_with_different_bins_are_not_compared(tmp_path: Path) -> None:
    other = model(tmp_path, SECOND, 1, "nowhere", label=CONTRACT.label.override(bins=(50.0, 60.0, 70.0)).as_json())
    with pytest.raises(UsageError, match="different bins or labels"):
        decide(other, model(tmp_path, FIRST, 0, "nowhere"), Settings())


def test_models_of_two_cities_are_not_compared(tmp_path: Path) -> None:
    other = model(tmp_path, SECOND, 1, "nowhere", vocabulary={"neighbourhood": {"Kadıköy": 1, "Beyoğlu": 2}})
    with pytest.raises(UsageError, match=r"share no neighbourhood: the one knows Kadıköy, Beyoğlu; the other"):
        decide(other, model(tmp_path, FIRST, 0, "nowhere"), Settings())


def test_a_champion_that_knows_none_of_the_rows_is_the_one_that_is_named(ray_session: None, tmp_path: Path) -> None:
    """Their vocabularies overlap, but not in the rows that were held out."""
    listings = accepted_listings(500)
    queens = listings.filter(pc.equal(listings["neighbourhood"], "Queens"))
    data = write_dataset(tmp_path / "data", queens)
    whole = model(tmp_path, FIRST, 0, data)
    narrow = model(tmp_path, SECOND, 1, data, vocabulary={**whole.vocabulary, "neighbourhood": {"Bronx": 1}})

    with pytest.raises(EvaluationError, match=rf"{SECOND} can't score any of the rows that .*{FIRST} .* knows .*Bronx"):
        decide(whole, narrow, Settings())


def test_both_are_evaluated_on_the_challengers_holdout(ray_session: None, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", accepted_listings(500))
    one, other = model(tmp_path, FIRST, 0, data), model(tmp_path, SECOND, 1, data)
    there, back = decide(one, other, Settings()), decide(other, one, Settings())
    assert there.promote is not back.promote
    assert there.challenger == back.champion
    assert there.challenger is not None
    assert 200 < there.challenger["rows"] < 300


def test_models_that_know_different_places_are_compared_where_both_can_score(ray_session: None, tmp_path: Path) -> None:
    listings = accepted_listings(500)
    data = write_dataset(tmp_path / "data", listings)
    whole = model(tmp_path, FIRST, 0, data)
    vocabulary = whole.vocabulary
    places = {name: code for name, code in vocabulary["neighbourhood"].items() if name != "Brooklyn"}
    narrow = model(tmp_path, SECOND, 1, data, vocabulary={**vocabulary, "neighbourhood": places})

    wider, narrower = decide(whole, narrow, Settings()), decide(narrow, whole, Settings())

    assert wider.challenger is not None
    assert wider.champion is not None
    assert wider.challenger["rows"] == wider.champion["rows"]
    assert "the challenger alone can score neighbourhood:unknown" in wider.reason
    assert not narrower.promote
    assert "can't score all holdout rows" in narrower.reason


def test_the_record_says_what_weakens_the_comparison(ray_session: None, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", accepted_listings(300), version="20270101T000000Z-cccccc")
    champion = model(tmp_path, FIRST, 0, data, split={"kind": "hash", "holdout_share": 0.1})
    reason = decide(model(tmp_path, SECOND, 1, data), champion, Settings()).reason
    assert "the dataset is now at 20270101T000000Z-cccccc" in reason
    assert "may have learned from some of these rows" in reason
