"""From manifests to the values that the template shows: texts, and lengths as shares of a width."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from markupsafe import Markup

from pipeline.evaluation.metrics import METRICS, Metric
from pipeline.evaluation.report.charts import standard_error
from transforms.contract import Label, label_from_json

# With fewer rows an accuracy says little; the page mutes it.
FEW_ROWS = 30
# Lines of a table that are open at once; the others unfold.
SHOWN = 12
NONE = "–"


def metric_text(metric: Metric, value: float | None) -> str:
    """A metric's value as the page prints it."""
    return NONE if value is None else percent(value) if metric.is_share else f"{value:.3f}"


def difference(metric: Metric, value: float, other: float) -> str:
    """How `value` compares with `other`, in words.

    >>> from pipeline.evaluation.metrics import METRIC
    >>> difference(METRIC["accuracy"], 0.71, 0.6), difference(METRIC["ordinal_mae"], 0.31, 0.45)
    ('11.0 points better', '0.140 better')
    """
    change = (other - value) if metric.lower_is_better else (value - other)
    amount = f"{abs(change) * 100:.1f} points" if metric.is_share else f"{abs(change):.3f}"
    return "the same" if round(change, 3) == 0 else f"{amount} {'better' if change > 0 else 'worse'}"


HEADLINE = ("accuracy", "macro_f1", "roc_auc", "ordinal_mae")


def page(manifest: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template needs."""
    evaluation = manifest["evaluation"]
    models = _models(manifest)
    importance: Mapping[str, float] = manifest.get("importance") or {}
    return {
        "ref": f"{manifest['name']}@{manifest['version']}",
        "created": when(manifest.get("created")),
        "manifest": manifest,
        "evaluation": evaluation,
        "dataset": dataset,
        "verdict": _verdict(models, evaluation),
        "notes": list(dict.fromkeys([*(dataset.get("notes") or ()), *(manifest.get("notes") or ())])),
        "models": models,
        "panels": [panel for metric in METRICS if metric.decides and (panel := _panel(metric, models))],
        "headline": HEADLINE,
        "rivals": _rivals(manifest),
        "classes": _classes(evaluation, label_from_json(manifest["label"])),
        "importance": _bars(sorted(importance.items(), key=lambda item: -item[1])),
        "segments": [
            _segment(name, rows, evaluation) for name, rows in (evaluation.get("segments") or {}).items() if rows
        ],
        "unscorable": _bars(_by_count(evaluation.get("unscorable"))),
        "reasons": _bars(_by_count(dataset.get("reasons"))),
        "warnings": _bars(_by_count(dataset.get("warnings"))),
        "details": [("Model", _flat(manifest, _MODEL_DETAILS)), ("Dataset", _flat(dataset, _DATASET_DETAILS))],
        "shown": SHOWN,
    }


_MODEL_DETAILS = (
    "split",
    "settings",
    "label",
    "contract",
    "features",
    "vocabulary",
    "code_version",
    "libraries",
    "sha256",
)
_DATASET_DETAILS = (
    "label",
    "contract",
    "settings",
    "code_version",
    "libraries",
    "started",
    "finished",
    "ray_job_id",
)


def _models(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This model, those it is compared with, and the one that always gives the same answer."""
    majority = manifest["evaluation"].get("majority")
    models = [{"name": "this model", "tone": "model", "metrics": manifest["metrics"]}]
    models += [
        {"name": other["name"], "tone": "other", "metrics": other["metrics"]}
        for other in manifest.get("comparison") or ()
    ]
    if majority:
        models.append(
            {"name": f"always “{majority['label']}”", "tone": "quiet", "metrics": _constant(manifest["evaluation"])}
        )
    return models


def _rivals(manifest: Mapping[str, Any]) -> str:
    """Which models the comparison is with, and on which rows."""
    rows = manifest["evaluation"]["rows"]
    sentences = [f"On {rows:,} held-out rows."]
    for other in manifest.get("comparison") or ():
        scored = other.get("rows", rows)
        extent = "on the same rows" if scored == rows else f"on the {scored:,} of them that it can score"
        ref = other.get("ref", other["name"])
        sentences.append(f"{_capital(other['name'])}{f' is {ref},' if ref != other['name'] else ''} {extent}.")
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _constant(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """What the majority class scores, with the two figures that follow from it: it ranks nothing, and its distances
    are known.
    """
    majority, labels, confusion = evaluation["majority"], list(evaluation["labels"]), evaluation["confusion"]
    answer, rows = labels.index(majority["label"]), sum(map(sum, confusion))
    distance = sum(abs(actual - answer) * sum(row) for actual, row in enumerate(confusion))
    return {**majority, "roc_auc": 0.5, **({"ordinal_mae": distance / rows} if rows else {})}


def _verdict(models: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> str:
    """The report in one sentence."""
    share, rows = models[0]["metrics"]["accuracy"], evaluation["rows"]
    others = [
        f"{percent(other)} ({model['name']})"
        for model in models[1:]
        if (other := _number(model["metrics"].get("accuracy"))) is not None
    ]
    against = f", against {' and '.join(others)}" if others else ""
    error = standard_error(share, rows) * 100
    return f"Right for {percent(share)} (± {error:.1f}, one standard error) of {rows:,} held-out rows{against}."


def _panel(metric: Metric, models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One metric of every model that has it, with lengths on one scale from zero."""
    values = [(model, value) for model in models if (value := _number(model["metrics"].get(metric.key))) is not None]
    if not values or values[0][0] is not models[0]:
        return None
    full = max(*(value for _, value in values), 0.0) or 1.0
    full = full if metric.lower_is_better else 1.0
    best = (min if metric.lower_is_better else max)(value for _, value in values)
    lines = []
    for model, value in values:
        versus = "" if model is models[0] else difference(metric, values[0][1], value)
        line = {
            "name": model["name"],
            "tone": model["tone"],
            "text": metric_text(metric, value),
            "length": value / full,
        }
        lines.append(line | {"best": value == best, "versus": versus})
    return {"metric": metric, "title": _capital(metric.title), "lines": lines}


def _classes(evaluation: Mapping[str, Any], label: Label) -> list[dict[str, Any]]:
    ranges = label.ranges()
    return [
        {"label": name, "range": ranges.get(name, ""), **evaluation["per_class"][name]} for name in evaluation["labels"]
    ]


def _segment(name: str, rows: Iterable[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    lines = []
    for row in sorted(rows, key=lambda row: -row["rows"]):
        error = standard_error(row["accuracy"], row["rows"])
        lines.append({**row, "error": error, "few": row["rows"] < FEW_ROWS})
    return {
        "name": name.replace("_", " "),
        "lines": lines,
        "overall": evaluation["metrics"]["accuracy"],
        "few": FEW_ROWS,
    }


def _by_count(counts: Mapping[str, int] | None) -> list[tuple[str, int]]:
    return sorted((counts or {}).items(), key=lambda item: (-item[1], item[0]))


def _bars(amounts: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Amounts with lengths relative to the largest."""
    most = max((amount for _, amount in amounts), default=0) or 1
    return [{"name": name, "amount": amount, "length": amount / most} for name, amount in amounts]


def _flat(data: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str]]:
    """Nested settings as lines of dotted name and value; a vocabulary as one line for each field."""
    lines: list[tuple[str, str]] = []
    for key in keys:
        value = data.get(key)
        if isinstance(value, Mapping) and key == "vocabulary":
            lines += [
                (f"{key}.{name}", value_text([f"{item} = {code}" for item, code in codes.items()]))
                for name, codes in value.items()
            ]
        elif isinstance(value, Mapping):
            lines += [(f"{key}.{name}", text) for name, text in _flat(value, value)]
        elif value not in (None, "", []):
            lines.append((key, value_text(value)))
    return lines


def _number(value: Any) -> float | None:
    """A finite number, else None: a metric that the rows did not allow (one label only) is shown as absent."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def percent(share: float | None) -> str:
    """A share with one decimal.

    >>> percent(0.70968)
    '71.0%'
    """
    return NONE if _number(share) is None else f"{share:.1%}"


def count(number: int | None) -> str:
    """A whole number with separators."""
    return NONE if number is None else f"{number:,}"


def bytes_text(size: float | None) -> str:
    """A size in the unit that reads best.

    >>> bytes_text(12_345_678), bytes_text(900)
    ('12.3 MB', '900 B')
    """
    if size is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def value_text(value: Any) -> str:
    """Any value of a manifest as a person would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def breakable(text: str) -> Markup:
    """A technical name that may break after its marks, not inside its words.

    >>> breakable("net_weight:<b>")
    Markup('net_<wbr>weight:<wbr>&lt;b&gt;')
    """
    return Markup("<wbr>").join(re.findall(r"[^_:/.]*[_:/.]+|[^_:/.]+", text))


def when(moment: str | None) -> str:
    """A time in UTC; a text that is not an ISO time stays as it is.

    >>> when("2026-11-23T13:45:00Z")
    '23 November 2026, 13:45 UTC'
    """
    try:
        parsed = datetime.fromisoformat(moment or "")
    except ValueError:
        return moment or NONE
    return f"{parsed.astimezone(UTC):%d %B %Y, %H:%M} UTC" if parsed.tzinfo else f"{parsed:%d %B %Y, %H:%M}"
