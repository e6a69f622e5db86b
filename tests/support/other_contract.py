"""A problem that is not that of the notebooks, and a tiny model of it: what holds here holds for any contract."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from registry.artifact import write_artifact
from tests.support.tiny_model import FIRST, tiny_manifest, tiny_onnx, tiny_probabilities
from transforms.contract import Classes, Contract, Field, ListColumn, composite_key
from transforms.readers import integer, number, text


def _is(name: str, column: str) -> Field:
    return Field(name, (column,), name.__eq__, pa.bool_(), f"Whether {name} is named.", from_list=True)


PARCELS = Contract(
    name="parcel-speed",
    version=3,
    record="parcel",
    records="parcels",
    fields=(
        composite_key("parcel", ("carrier", "number"), "A hash of carrier and number."),
        Field("city", ("city",), text, pa.string(), "Where it goes.", required=True),
        Field("size", ("size",), text, pa.string(), "Its size.", allowed=("S", "M", "L")),
        Field("grams", ("grams",), integer, pa.int32(), "Its weight.", low=1, high=50_000, required=True),
        Field("distance", ("km",), number, pa.float32(), "How far it goes.", low=0),
        Field("insured", ("insured",), integer, pa.bool_(), "Whether it is insured."),
        _is("express", "services"),
        _is("cooled", "services"),
        _is("glass", "contents"),
        Field("speed", ("speed",), text, pa.string(), "How it went.", required=True, allowed=("slow", "fast")),
    ),
    key="parcel",
    target="speed",
    label=Classes(("slow", "fast")),
    lists=(
        ListColumn("services", json.loads, "What was booked."),
        ListColumn("contents", json.loads, "What is in it."),
    ),
    example={"city": "Oslo", "size": "M", "grams": 900, "express": 1},
)
VOCABULARY = {"city": {"Rome": 1, "Lima": 2}, "size": {"S": 1, "M": 2, "L": 3}}


def parcel_model(folder: Path) -> Path:
    """Write a model of parcels, and return its folder."""
    weights = np.random.default_rng(7).normal(0, 0.3, (len(PARCELS.features), 2)).astype(np.float32)
    golden = np.random.default_rng(8).uniform(0, 3, (4, len(PARCELS.features))).astype(np.float32)
    facts = {
        "name": PARCELS.name,
        "contract": PARCELS.ref,
        "label": PARCELS.label.as_json(),
        "features": list(PARCELS.features),
        "vocabulary": VOCABULARY,
    }
    write_artifact(
        folder,
        manifest={**tiny_manifest(FIRST), **facts},
        onnx=tiny_onnx(weights),
        golden_features=golden,
        golden_probabilities=tiny_probabilities(golden, weights),
        files={},
    )
    return folder
