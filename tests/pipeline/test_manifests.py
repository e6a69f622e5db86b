"""A dataset's manifest names the folder that is read next, so it is checked first."""

import json
from typing import Any

import pytest

from nightprice.address import parse_address
from nightprice.errors import ContractError
from pipeline.datasets import Dataset
from pipeline.manifests import parse_manifest
from transforms.listings import CONTRACT

RIGHT: dict[str, Any] = {
    "version": "20260101T000000Z-aaaaaa",
    "rows": {"read": 1, "accepted": 1, "rejected": 0},
    "contract": CONTRACT.ref,
    "label": CONTRACT.label.as_json(),
    "reasons": {},
}


def test_a_manifest_as_process_writes_it_is_accepted() -> None:
    assert parse_manifest(json.dumps(RIGHT), "x") == RIGHT
    assert parse_manifest('{"version": "1", "rows": {}}', "x")["version"] == "1"


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"version": "../../etc"}, r'wrong: version: "\.\./\.\./etc" is not of the form'),
        ({"version": "/etc"}, "wrong: version"),
        ({"version": ""}, "wrong: version"),
        ({"version": "a/b"}, "wrong: version"),
        ({"version": "1\n"}, "wrong: version"),
        ({"version": ".."}, "wrong: version"),
        ({"version": 1}, "wrong: version"),
        ({"rows": [1]}, "wrong: rows"),
        ({"rows": {"read": -1}}, "wrong: rows.read"),
        ({"rows": {"read": 10**400}}, "wrong: rows.read"),
        ({"contract": [1]}, "wrong: contract"),
        ({"label": {"kind": "bands", "labels": "abcd"}}, "wrong: label.labels"),
    ],
    ids=str,
)
def test_an_entry_of_another_kind_is_refused(entries: dict[str, Any], problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        parse_manifest(json.dumps({**RIGHT, **entries}), "x")


@pytest.mark.parametrize("text", ["[1]", "7", "null", '"text"'])
def test_what_is_no_object_is_no_manifest(text: str) -> None:
    with pytest.raises(ContractError, match="is not the manifest of a dataset"):
        parse_manifest(text, "x")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"version": "1", "rows": NaN}', '{"version": 1e999}', "{"])
def test_what_is_no_plain_json_is_no_manifest(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_manifest(text, "x")


@pytest.mark.parametrize("label", [None, {"kind": "bands", "labels": ["a"]}, {"kind": "classes", "labels": ["a", "b"]}])
def test_a_dataset_without_a_label_says_so(label: Any) -> None:
    manifest = parse_manifest(json.dumps({key: value for key, value in RIGHT.items() if key != "label"}), "x")
    if label:
        manifest["label"] = label
    address = parse_address("dataset")
    with pytest.raises(ContractError, match=r'"dataset" does not say how its rows were labelled'):
        _ = Dataset(address, CONTRACT, manifest, address, address).label


def test_a_manifest_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(ValueError, match="it has more than 16 MiB"):
        parse_manifest(" " * (16 * 2**20 + 1), "x")
