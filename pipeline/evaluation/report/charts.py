"""Pictures as SVG text. Colours come from the page's style by class, so that dark mode and print have their own.

Every function returns Markup whose data is escaped. A picture carries its content as title and description.
"""

from collections.abc import Mapping, Sequence
from math import ceil, isfinite, sqrt
from typing import Any

from markupsafe import Markup, escape

# Steps of the colour scale of a heatmap; the style has a fill and an ink for each.
HEAT_STEPS = 9


def standard_error(share: float, rows: int) -> float:
    """Of a share observed on a number of rows: the binomial standard error.

    >>> standard_error(0.5, 100)
    0.05
    """
    return sqrt(share * (1 - share) / rows) if rows else 0.0


def bar(
    length: float, *, tone: str = "model", spread: float = 0.0, reference: float | None = None, title: str = ""
) -> Markup:
    """One horizontal bar that fills its cell: `length`, `spread` (half the whisker) and `reference` are shares of
    the width.
    """
    end = _clipped(length)
    parts = [
        Markup(
            '<rect class="track" width="100%" height="100%"/><rect class="fill {}" width="{}" height="100%" rx="2"/>'
        ).format(tone, _at(end))
    ]
    if reference is not None:
        parts.append(
            Markup('<line class="reference" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(_at(_clipped(reference)))
        )
    if spread:
        low, high = _at(_clipped(length - spread)), _at(_clipped(length + spread))
        parts.append(Markup('<line class="whisker" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(low, high))
        parts += [Markup('<line class="whisker" x1="{0}" x2="{0}" y1="25%" y2="75%"/>').format(x) for x in (low, high)]
    return Markup('<svg class="bar" role="img" aria-label="{0}"><title>{0}</title>{1}</svg>').format(
        title, Markup("").join(parts)
    )


def shares(parts: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar divided among `parts` of (class, amount, title)."""
    total = sum(amount for _, amount, _ in parts) or 1
    drawn, start = [], 0.0
    for tone, amount, title in parts:
        rect = Markup('<rect class="fill {}" x="{}" width="{}" height="100%"><title>{}</title></rect>')
        drawn.append(rect.format(tone, _at(start), _at(amount / total), title))
        start += amount / total
    label = ", ".join(title for _, _, title in parts)
    return Markup('<svg class="shares" role="img" aria-label="{}">{}</svg>').format(label, Markup("").join(drawn))


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """A heatmap, true categories in rows, predicted in columns: the share of the row large, the count small.

    The colour is the share of the row, so that rare categories show as clearly as frequent ones.
    """
    left, top, width, height = 92, 44, 344 / len(labels), min(80.0, 344 / len(labels))
    shapes = [_text(left + 172, 12, "predicted", "axis"), _text(0, 32, "actual", "axis start")]
    descriptions = []
    for column, label in enumerate(labels):
        shapes.append(_text(left + (column + 0.5) * width, 32, label, "label", room=width))
    for row, label in enumerate(labels):
        y, total = top + row * height, sum(counts[row])
        shapes.append(_text(0, y + height / 2 + 4, label, "label start", room=left - 8))
        for column, predicted in enumerate(labels):
            amount, share = counts[row][column], counts[row][column] / total if total else 0.0
            descriptions.append(f"{label} predicted as {predicted}: {amount:,} ({share:.0%})")
            shapes.append(
                _cell((left + column * width, y, width, height), amount, share, descriptions[-1], right=row == column)
            )
    return _figure(436, top + len(labels) * height + 4, "Confusion matrix", "; ".join(descriptions), shapes)


def _cell(place: tuple[float, float, float, float], amount: int, share: float, title: str, right: bool) -> Markup:
    x, y, width, height = place
    step = min(int(share * HEAT_STEPS), HEAT_STEPS - 1)
    small = width < 52
    box = Markup(
        '<g class="heat q{}{}"><title>{}</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>'
    )
    drawn = box.format(step, " right" if right else "", title, x + 1.5, y + 1.5, width - 3, height - 3)
    middle = y + height / 2
    drawn += _text(x + width / 2, middle + (1 if small else 2), f"{share:.0%}", "share small" if small else "share")
    return drawn + _text(x + width / 2, middle + (11 if small else 19), f"{amount:,}", "count") + Markup("</g>")


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """How often the model is right (up) against how sure it says it is (right), with the rows of each bin below.

    A point on the diagonal keeps its promise; its whisker is one standard error. Empty bins are left out.
    """
    filled = [one for one in bins if one["rows"]]
    left, side, base, panel = 44, 380, 264, 56
    start = min((float(one["lower"]) for one in filled), default=0.0)
    most = max((int(one["rows"]) for one in filled), default=1)
    shapes, descriptions = [_grid(left, side, base, start), _text(left, 12, "right", "axis start")], []
    for one in filled:
        confidence, accuracy, rows = float(one["confidence"]), float(one["accuracy"]), int(one["rows"])
        descriptions.append(f"says {confidence:.1%}, right {accuracy:.1%} of {rows:,} rows")
        x, y = left + _scaled(confidence, start) * side, base - accuracy * (base - 20)
        error = standard_error(accuracy, rows) * (base - 20)
        ideal = base - confidence * (base - 20)
        shapes.append(
            Markup(
                '<g><title>{0}</title><line class="gap" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>'
            ).format(descriptions[-1], x, y, ideal)
        )
        shapes.append(
            Markup('<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
                x, y - error, y + error
            )
        )
        shapes.append(Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="5"/></g>').format(x, y))
        low, high = (left + _scaled(float(one[edge]), start) * side for edge in ("lower", "upper"))
        tall = rows / most * panel
        ground = base + 40 + panel + 16
        column = Markup('<rect class="fill quiet" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        shapes.append(column.format(low + 1.5, ground - tall, high - low - 3, tall))
        shapes.append(_text((low + high) / 2, ground - tall - 4, f"{rows:,}", "count", room=high - low + 6))
    shapes.append(_text(0, base + 56 + panel, "rows", "axis start"))
    return _figure(left + side + 12, base + panel + 64, "Reliability diagram", "; ".join(descriptions), shapes)


def _grid(left: float, side: float, base: float, start: float) -> Markup:
    """Lines at quarters of the accuracy, labels at tenths of the confidence from `start`, and the diagonal."""
    parts = []
    for quarter in (0, 0.25, 0.5, 0.75, 1):
        y = base - quarter * (base - 20)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(left, left + side, y=y)
        )
        if quarter < 1:
            parts.append(_text(left - 8, y + 4, f"{quarter:.0%}", "tick end"))
    parts.append(_text(left - 8, 24, "100%", "tick end"))
    first = ceil(start * 10 - 1e-9)
    ticks = [tenth / 10 for tenth in range(10, first - 1, -1 if first >= 5 else -2)]
    parts += [_text(left + _scaled(tick, start) * side, base + 18, f"{tick:.0%}", "tick") for tick in ticks]
    parts.append(_text(left + side / 2, base + 34, "what it says (mean probability of its answer)", "axis"))
    diagonal = Markup('<line class="diagonal" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="20"/>')
    parts.append(diagonal.format(left, base - start * (base - 20), left + side))
    parts.append(_text(left + 12, 40, "too modest", "axis start"))
    parts.append(_text(left + side - 4, base - 12, "too sure", "axis end"))
    return Markup("").join(parts)


def _figure(width: float, height: float, title: str, description: str, shapes: Sequence[Markup]) -> Markup:
    frame = Markup('<svg class="figure" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}: {}">{}</svg>')
    return frame.format(width, height, title, description, Markup("").join(shapes))


def _text(x: float, y: float, text: str, kind: str, room: float | None = None) -> Markup:
    """A text, shortened to about `room` units of width; the whole one stays in its title."""
    limit = max(int(room / 6.4), 2) if room else len(text)
    shortened = text if len(text) <= limit else text[: limit - 1] + "…"
    title = Markup("<title>{}</title>").format(text) if shortened != text else ""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}{}</text>').format(kind, x, y, escape(shortened), title)


def _scaled(value: float, start: float) -> float:
    return (value - start) / (1 - start) if start < 1 else 0.0


def _clipped(share: float) -> float:
    return min(max(share, 0.0), 1.0) if isfinite(share) else 0.0


def _at(share: float) -> str:
    return f"{share * 100:.2f}%"
