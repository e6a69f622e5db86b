"""Real listings: HTTP single, batch, Arrow, V2 and batch scoring give the same probabilities, bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from pipeline.predict import score
from serve_app.model.reloader import ModelReloader
from serve_app.protocols.v2 import datatype
from tests.support.paths import TEST_DATA
from tests.support.serving.client import Client
from tests.support.serving.requests import INFER, stream, tensor
from transforms.clean import clean
from transforms.listings import CONTRACT

FILES = sorted(TEST_DATA.glob("**/*listings*.csv.gz"))
ROWS = 400


@pytest.mark.skipif(not FILES, reason="NIGHTPRICE_TEST_DATA names no folder of real listings")
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name.partition(".")[0])
def test_every_way_gives_the_same(client: Client, reloader: ModelReloader, file: Path) -> None:
    raw = pyarrow.csv.read_csv(
        file,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(CONTRACT.raw_columns, pa.string()),
            include_columns=list(CONTRACT.raw_columns),
            include_missing_columns=True,
        ),
    )
    accepted = clean(raw, CONTRACT).accepted
    # The model knows New York: its boroughs stand in for other cities' neighbourhoods.
    known = list(reloader.predictor.artifact.vocabulary["neighbourhood"])
    names = pa.array(
        [
            known[hash(name) % len(known)] if name not in known else name
            for name in accepted["neighbourhood"].to_pylist()
        ]
    )
    rows = accepted.set_column(accepted.schema.get_field_index("neighbourhood"), "neighbourhood", names)
    rows = rows.take(np.random.default_rng(0).permutation(len(rows))[:ROWS])
    batch = score(rows, reloader.predictor.artifact, reloader.predictor.encoder)
    expected = np.column_stack([batch[f"probability_{label}"].to_numpy() for label in CONTRACT.label.labels])

    listings = rows.to_pylist()
    single = [client.post("/v1/predict", listing).json() for listing in listings[:50]]
    many = client.post("/v1/predict/batch", {"listings": listings}).json()["results"]
    arrow = pa.ipc.open_stream(client.arrow(stream(rows)).content).read_all()
    tensors = [tensor(item.name, rows[item.name].to_pylist(), datatype(item)) for item in CONTRACT.inputs]
    v2 = client.post(INFER, {"inputs": tensors}).json()["outputs"][1]["data"]

    assert len(rows) > 100
    assert np.array_equal(shares(single), expected[:50])
    assert np.array_equal(shares(many), expected)
    assert np.array_equal(
        np.column_stack([arrow[f"probability_{label}"].to_numpy() for label in CONTRACT.label.labels]), expected
    )
    assert np.array_equal(np.array(v2, np.float32).reshape(-1, 4), expected)


def shares(answers: list[dict[str, Any]]) -> Any:
    return np.array([list(answer["probabilities"].values()) for answer in answers], np.float32)
