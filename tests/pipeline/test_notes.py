"""Thin or strange data and models are said in a sentence each, and usual ones are not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.io.tagged_blocks import SAMPLE_ROWS, stats_of
from pipeline.notes import dataset_notes, evaluation_notes, field_notes, label_notes
from tests.support.accepted_listings import accepted_listings
from tests.support.raw_listings import listing, table_of
from transforms.clean import clean
from transforms.listings import CONTRACT


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    position = table.column_names.index(name)
    return table.set_column(position, name, pa.array(values, table.schema.field(name).type))


def test_usual_data_has_no_notes() -> None:
    assert dataset_notes(accepted_listings(300), CONTRACT, CONTRACT.label) == []


def test_other_money_is_noticed_even_in_three_rows_and_bins_are_proposed() -> None:
    cleaned = clean(table_of([listing(n, price=f"${1_000 * n}") for n in (1, 2, 3)]), CONTRACT, CONTRACT.label)

    (note,) = dataset_notes(cleaned.accepted, CONTRACT, CONTRACT.label)

    assert note.startswith('100.0% of the rows have the one label "Lux"')
    assert note.endswith("Bins that divide this data evenly: bins = [1500.0, 2000.0, 2500.0].")


def test_prices_that_are_all_alike_have_no_bins_to_propose() -> None:
    cleaned = clean(table_of([listing(n, price="$70") for n in (1, 2, 3)]), CONTRACT, CONTRACT.label)

    (note,) = dataset_notes(cleaned.accepted, CONTRACT, CONTRACT.label)

    assert "bins =" not in note


@pytest.mark.parametrize(("share", "notes"), [(0.89, 0), (0.9, 1), (0.94, 1)])
def test_from_90_percent_in_one_label_it_is_said(share: float, notes: int) -> None:
    assert len(label_notes({"Low": round(1_000 * share), "Mid": round(1_000 * (1 - share))})) == notes


def test_fields_that_say_nothing_are_named() -> None:
    table = accepted_listings(200)
    table = replaced(table, "bedrooms", [1.0] * 10 + [None] * 190)
    table = replaced(table, "neighbourhood", ["NA"] * 200)

    assert field_notes(table, CONTRACT) == [
        'neighbourhood is "NA" in all rows: no model learns from it.',
        "bedrooms is missing in 95% of the rows.",
    ]
    assert field_notes(table.slice(0, 50), CONTRACT) == []


@pytest.mark.parametrize(
    ("rows", "accuracy", "notes"), [(900, 0.8, 0), (900, 0.5, 1), (900, 0.4, 1), (199, 0.8, 1), (20, 0.4, 2)]
)
def test_a_weak_model_and_a_thin_holdout_are_said(rows: int, accuracy: float, notes: int) -> None:
    assert len(evaluation_notes(rows, accuracy, {"label": "Mid", "accuracy": 0.5, "macro_f1": 0.2})) == notes


def test_the_sample_does_not_depend_on_how_rows_are_divided() -> None:
    table = accepted_listings(4 * SAMPLE_ROWS)
    cleaned = clean(table_of([listing(1)]), CONTRACT, CONTRACT.label)
    warnings = pa.chunked_array([cleaned.warnings])

    def sample(*sizes: int) -> set[int]:
        parts, start = [], 0
        for size in sizes:
            parts.append(stats_of(table.slice(start, size), cleaned.rejected, warnings, "id"))
            start += size
        total = sum(parts[1:], parts[0])
        assert total.sample is not None
        return set(total.sample["id"].to_pylist())

    whole, divided = sample(4 * SAMPLE_ROWS), sample(7, SAMPLE_ROWS, 3 * SAMPLE_ROWS - 7)

    assert whole == divided
    assert len(whole) == SAMPLE_ROWS
    assert np.mean([key in whole for key in table["id"].to_pylist()[: 2 * SAMPLE_ROWS]]) == pytest.approx(
        0.25, abs=0.05
    )
