"""Whether a model can take the place of another, so that whoever uses the one can use the other."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> str | None:
    """Why a model can't take the place of another unnoticed, as half a sentence, or None: by the contract, label and
    vocabulary of both manifests.

    Another contract, other labels or bins, or a text feature of which they know no common value, as in models of two
    cities. Values that only one of them knows are usual.
    """
    one, other = new["contract"], old["contract"]
    # A model of format 1 has no digest.
    if {**one, "digest": ""} != {**other, "digest": ""} or (
        one["digest"] != other["digest"] and one["digest"] and other["digest"]
    ):
        return f"they have different contracts ({_contract(new)} and {_contract(old)})"
    if new["label"] != old["label"]:
        return f"they have different bins or labels ({describe_label(new['label'])}; {describe_label(old['label'])})"
    for name, known in new["vocabulary"].items():
        before = old["vocabulary"].get(name, {})
        if known and before and not known.keys() & before.keys():
            return f"they share no {name}: the one knows {some(known)}; the other knows {some(before)}"
    return None


def some(values: Iterable[str]) -> str:
    """The first few values, for a message.

    >>> some(["Bronx", "Queens", "Brooklyn", "Manhattan"])
    'Bronx, Queens, Brooklyn, …'
    """
    first = list(islice(values, 4))
    return ", ".join([*first[:3], *(["…"] if len(first) > 3 else [])])


def _contract(model: Mapping[str, Any]) -> str:
    return f"{model['contract']['name']} {model['contract']['version']}"


def describe_label(label: Mapping[str, Any]) -> str:
    """A label's JSON in words.

    >>> describe_label({"kind": "bands", "bins": [90.0, 180.0], "labels": ["Low", "Mid", "High"], "minimum": 10.0})
    'Low, Mid, High at 90, 180, minimum 10'
    """
    bounds = f" at {', '.join(f'{bound:g}' for bound in label['bins'])}" if "bins" in label else ""
    minimum = f", minimum {label['minimum']:g}" if label.get("minimum") is not None else ""
    return f"{', '.join(label['labels'])}{bounds}{minimum}"
