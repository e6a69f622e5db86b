"""Results as tables for people; the JSON of the same command holds everything in them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.metrics import METRIC, METRICS, SUMMARY, Metric


def render_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[str] = ()
) -> RenderableType:
    """A table below its title; the columns named in `numbers` are aligned to the right."""
    grid = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        grid.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers)
    for row in rows:
        grid.add_row(*(value if isinstance(value, Text) else escape(format_value(value)) for value in row))
    return Group(Text(title, style="bold"), grid)


def format_value(value: Any) -> str:
    """
    >>> format_value(1234567), format_value(0.70346), format_value(None)
    ('1,234,567', '0.7035', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def render_next_steps(*commands: str) -> RenderableType:
    """What to type next."""
    return Text.assemble(("Next:  ", "bold"), "\n       ".join(commands))


def render_rows(manifest: Mapping[str, Any], uri: str) -> RenderableType:
    """Counts of a dataset or of scored rows, and why rows were rejected."""
    counts = manifest["rows"]
    share = counts["rejected"] / counts["read"] if counts["read"] else 0.0
    line = (
        f"{counts['read']:,} rows read, {counts['accepted']:,} accepted, {counts['rejected']:,} rejected ({share:.1%})"
    )
    lines: list[RenderableType] = [Text(line, style="bold"), Text(f"{uri}  version {manifest['version']}")]
    if manifest["reasons"]:
        lines.append(_counts("Rejected for", manifest["reasons"]))
    if manifest.get("warnings"):
        lines.append(_counts("Warnings", manifest["warnings"]))
    return Group(*lines, *render_notes(manifest.get("notes", ())))


def render_notes(notes: Iterable[str]) -> list[RenderableType]:
    """What is strange, a line each."""
    return [Text(f"Note: {note}", style="yellow") for note in notes]


def _counts(title: str, counts: Mapping[str, int]) -> RenderableType:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return render_table(title, ("reason", "rows"), ordered, numbers=("rows",))


def render_metrics(models: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Metrics side by side, one column a model; the best of several is marked."""
    defined = [metric for metric in METRICS if any(metric.key in values for values in models.values())]
    body = [
        (_directed(metric), *_marked([values.get(metric.key) for values in models.values()], metric.lower_is_better))
        for metric in defined
    ]
    return render_table("Metrics", ("", *models), body, numbers=tuple(models))


def _directed(metric: Metric) -> str:
    better = "lower" if metric.lower_is_better else "higher"
    return f"{metric.title} ({better} is better)" if metric.decides else metric.title


def _marked(values: list[Any], lower_is_better: bool) -> list[Any]:
    defined = [value for value in values if value is not None]
    if len(defined) < 2:
        return values
    best = min(defined) if lower_is_better else max(defined)
    return [Text(format_value(value), style="bold green") if value == best else value for value in values]


def render_evaluation(evaluation: Mapping[str, Any]) -> list[RenderableType]:
    """How many rows an evaluation stands on, and how good it is for every label."""
    lines = f"on {evaluation['rows']:,} rows" + "".join(
        f", {count:,} not scored: {reason}" for reason, count in evaluation["unscorable"].items() if count
    )
    columns = ("precision", "recall", "f1", "support")
    body = [(label, *(of[name] for name in columns)) for label, of in evaluation["per_class"].items()]
    notes = render_notes(evaluation["notes"])
    return [Text(lines), *notes, "", render_table("Labels", ("", *columns), body, numbers=columns)]


def render_models(
    name: str, versions: Sequence[Mapping[str, Any]], aliases: Mapping[str, Sequence[str]]
) -> RenderableType:
    """All versions of a model, newest first, then what is wrong with those that can't be used; `aliases` by version."""
    body = [
        (
            item["version"],
            ", ".join(aliases.get(item["version"], ())) or "",
            Text("broken", style="bold red") if "error" in item else item["estimator"],
            *(item["metrics"].get(metric) for metric in SUMMARY),
            item["created"] and format_time(item["created"]),
        )
        for item in versions
    ]
    heads = [METRIC[key].title for key in SUMMARY]
    table = render_table(name, ("version", "alias", "estimator", *heads, "created"), body, numbers=heads)
    return Group(table, *(Text(item["error"], style="red") for item in versions if "error" in item))


def render_history(name: str, records: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Every change of an alias, newest first; the first row is in force."""
    body = [
        (
            item["number"],
            item["action"],
            item["version"],
            item["previous"],
            format_time(item["when"]),
            item["who"],
            item["why"],
        )
        for item in records
    ]
    return render_table(
        name, ("no.", "change", "version", "before", "when (UTC)", "who", "why"), body, numbers=("no.",)
    )


def format_time(iso: Any) -> str:
    """
    >>> format_time("2026-11-23T13:45:00.123456+00:00")
    '2026-11-23 13:45:00'
    """
    return str(iso)[:19].replace("T", " ")


_MARKS = {
    "ok": Text("ok", style="green"),
    "note": Text("note", style="yellow"),
    "failed": Text("failed", style="bold red"),
}


def render_examination(examination: Mapping[str, Any]) -> list[RenderableType]:
    """What the doctor found, how to fix it in the row below, and the settings in force."""
    body: list[Sequence[Any]] = []
    for item in examination["findings"]:
        body.append((_MARKS[item["status"]], item["about"], item["found"]))
        if item["fix"]:
            body.append(("", "", Text(f"→ {item['fix']}", style="bold")))
    tables: list[RenderableType] = [render_table("Checks", ("", "about", "found"), body)]
    if examination["settings"]:
        settings = [(name, _toml(item["value"]), item["origin"]) for name, item in examination["settings"].items()]
        tables += ["", render_table("Settings in force", ("setting", "value", "from"), settings)]
    failed = [item["about"] for item in examination["findings"] if item["status"] == "failed"]
    verdict = (
        f"{len(failed)} of {len(examination['findings'])} checks failed: {', '.join(failed)} (above)."
        if failed
        else "Everything that the pipeline needs is there."
    )
    return [*tables, "", Text(verdict, style="bold red" if failed else "bold green")]


def _toml(value: Any) -> Text:
    return Text("none" if value is None else json.dumps(value, ensure_ascii=False))
