"""The notebook's way to production: its pickled forest behind Flask, run by gunicorn."""

import os
import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from flask import Flask, Response, jsonify, request
from sklearn.ensemble import RandomForestClassifier

from transforms.listings import CONTRACT

MODEL_VARIABLE = "NOTEBOOK_MODEL"
TREES = 500
NUMBERS = ("accommodates", "bathrooms", "bedrooms")
NEIGHBOURHOODS = {"Bronx": 1, "Queens": 2, "Staten Island": 3, "Brooklyn": 4, "Manhattan": 5}
ROOMS = {"Shared room": 1, "Private room": 2, "Entire home/apt": 3, "Hotel room": 4}
LABELS = tuple(CONTRACT.label.labels)


def fit(accepted: pa.Table) -> bytes:
    """The notebook's forest on accepted listings without gaps, pickled."""
    frame = accepted.select(["neighbourhood", "room_type", *NUMBERS, CONTRACT.label_name]).to_pandas().dropna()
    features = np.column_stack(
        [frame["neighbourhood"].map(NEIGHBOURHOODS), frame["room_type"].map(ROOMS), frame[list(NUMBERS)]]
    )
    forest = RandomForestClassifier(TREES, random_state=0, class_weight="balanced", n_jobs=-1)
    forest.fit(features, frame[CONTRACT.label_name].map(LABELS.index))
    forest.n_jobs = None
    return pickle.dumps(forest)


def app() -> Flask:
    """The application, as gunicorn calls for it."""
    forest: RandomForestClassifier = pickle.loads(Path(os.environ[MODEL_VARIABLE]).read_bytes())
    flask = Flask(__name__)

    @flask.get("/readyz")
    def ready() -> str:
        return "ready"

    @flask.post("/v1/predict")
    def predict() -> Response:
        listing = request.get_json()
        codes = [NEIGHBOURHOODS[listing["neighbourhood"]], ROOMS[listing["room_type"]]]
        row = np.array([[*codes, *(listing[name] for name in NUMBERS)]], np.float64)
        shares: npt.NDArray[np.float64] = forest.predict_proba(row)[0]
        return jsonify(
            {
                "id": listing["id"],
                CONTRACT.label_name: LABELS[shares.argmax()],
                "probabilities": dict(zip(LABELS, shares, strict=True)),
            }
        )

    return flask
