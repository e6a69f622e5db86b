"""One raw row read field by field, as plainly as the contract can be read: what batch cleaning is held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from nightprice.defaults import DEFAULT_MISSING_VALUES
from transforms.clean import BLANK_ROW_REASON
from transforms.contract import MISSING, OTHER_COLUMN, UNPARSEABLE, Contract, Field, Label

WORDS = {word.lower() for word in DEFAULT_MISSING_VALUES}


@dataclass
class CleanedRow:
    """One raw row: its values, and what was wrong."""

    record: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def clean_row(raw: Mapping[str, str | None], contract: Contract, label: Label | None = None) -> CleanedRow:
    """`transforms.clean.clean` of one row; with `label` the target is required and the record gets its label."""
    raw = {name: None if is_nothing(text) else text for name, text in raw.items()}
    cleaned = CleanedRow()
    lists = {column.name: _items(raw.get(column.name), column, cleaned.warnings) for column in contract.lists}
    for item in contract.fields:
        if item.name == contract.target and label is None:
            continue
        value: Any
        if item.from_list:
            items = lists[item.columns[0]]
            value, problem = None if items is None else any(map(item.read, items)), None
        else:
            text, column = _text(item, raw)
            value, problem = item.read_text(text)
            if text is not None and not item.joined and column != item.columns[0]:
                cleaned.warnings.append(f"{item.name}:{OTHER_COLUMN}")
            if item.name == contract.target and label and problem is None:
                problem = label.problem(value)
        if problem:
            (cleaned.warnings if item.is_warning(problem) else cleaned.reasons).append(f"{item.name}:{problem}")
        cleaned.record[item.name] = (
            float(np.float32(value)) if item.type == pa.float32() and value is not None else value
        )
    if f"{contract.key}:{MISSING}" in cleaned.reasons and not any(raw.values()):
        cleaned.reasons = [BLANK_ROW_REASON]
    if label is not None and contract.label_column:
        target = cleaned.record[contract.target]
        cleaned.record[contract.label_column] = None if target is None else label.label_of(target)
    return cleaned


def is_nothing(text: str | None) -> bool:
    """Whether a raw text is null, blank or a word for nothing."""
    return text is None or not text.strip() or text.strip().lower() in WORDS


def _text(item: Field, raw: Mapping[str, str | None]) -> tuple[str | None, str]:
    texts = [raw.get(name) for name in item.columns]
    if item.joined:
        return None if None in texts else "\x1f".join(str(text).strip() for text in texts), ""
    return next(((text, name) for name, text in zip(item.columns, texts, strict=True) if text), (None, ""))


def _items(raw: str | None, column: Any, warnings: list[str]) -> list[str] | None:
    if raw is None:
        return []
    try:
        items: list[str] = column.parse(raw)
    except ValueError:
        warnings.append(f"{column.name}:{UNPARSEABLE}")
        return None
    return items
