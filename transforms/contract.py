"""A problem as one value: what a record is, how its raw text is read, and what is predicted of it.

Cleaning in batch, the reasons of rejected rows, the processed schema, the HTTP model and its messages, OpenAPI, the
page's form and the generated documentation all follow from one `Contract`. Nothing else names a field.
"""

import hashlib
import importlib
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, TypedDict

import pyarrow as pa

from nightprice.defaults import NAME_PATTERN
from nightprice.errors import ContractError, NightpriceError, UsageError, closest, first_line, missing_columns
from nightprice.hashing import text_key
from transforms import readers
from transforms.lift import MOST_FUNCTIONS

MISSING = "missing"
UNPARSEABLE = "unparseable"
OUT_OF_RANGE = "out_of_range"
NOT_ALLOWED = "not_allowed"
BELOW_MINIMUM = "below_minimum"
UNKNOWN = "unknown"
NO_COLUMN = "no_column"
OTHER_COLUMN = "other_column"

# Between the texts of a joined field.
JOINER = "\x1f"

FIXED_ORDER = "fixed_order"
RANKED = "ranked"
RANKED_WITH_RARE = "ranked_with_rare"
ENCODINGS = {
    FIXED_ORDER: "the position among the allowed values",
    RANKED: "the rank by mean label among the training rows; an unknown value is an error",
    RANKED_WITH_RARE: "the same, but rare values share one code, and an unknown value is missing",
}
"""How a text becomes a number: every encoding by its name."""


@dataclass(frozen=True)
class Field:
    """One value of a record: where it comes from, how one raw text is read, and what it may be.

    >>> from transforms.readers import number
    >>> beds = Field("beds", ("beds",), number, pa.float32(), "Number of beds.", low=0, high=100)
    >>> beds.read_text("2"), beds.read_text("many"), beds.read_text("-1")
    ((2.0, None), (None, 'unparseable'), (None, 'out_of_range'))
    """

    name: str
    columns: tuple[str, ...]
    """Raw columns; the first that is not blank in a row counts."""
    read: Callable[[str], Any]
    """One raw text (of a list field: one item of the list) to a value; ValueError if it can't be read."""
    type: pa.DataType
    description: str
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    required: bool = False
    encoding: str | None = None
    """A key of ENCODINGS, for a text. None: "fixed_order" if `allowed` is set, else "ranked" if `required`, else
    "ranked_with_rare"."""
    from_list: bool = False
    """Read from the items of a `ListColumn`: true if `read` is true of any item, false without a list, missing if the
    list can't be read."""
    joined: bool = False
    """All raw columns count, joined to one text, which is blank if any of them is: see `composite_key`."""

    @property
    def is_text(self) -> bool:
        return bool(pa.types.is_string(self.type))

    @property
    def coded_as(self) -> str | None:
        """The encoding in force; None for what is a number already."""
        if not self.is_text:
            return None
        return self.encoding or (FIXED_ORDER if self.allowed else RANKED if self.required else RANKED_WITH_RARE)

    def lacks_column(self, available: Sequence[str]) -> bool:
        """Whether the raw columns that are available do not suffice: any of them, or all of a joined field."""
        present = [name in available for name in self.columns]
        return not (all(present) if self.joined else any(present))

    def columns_in_words(self) -> str:
        """The raw columns, for messages.

        >>> Field("beds", ("beds", "bed_count"), int, pa.int16(), "").columns_in_words()
        '"beds" or "bed_count"'
        """
        return (" and " if self.joined else " or ").join(f'"{name}"' for name in self.columns)

    def read_text(self, raw: str | None) -> tuple[Any, str | None]:
        """One raw text as a value, or None with its problem: missing, unparseable, not_allowed, out_of_range."""
        if raw is None or not raw.strip():
            return None, MISSING if self.required else None
        try:
            value = self.read(raw)
        except ValueError:
            return None, UNPARSEABLE
        except Exception as error:
            raise rule_failed(self, raw, error) from error
        problem = self.problem(value)
        return (None, problem) if problem else (value, None)

    def matches(self, item: str) -> bool:
        """Of a list field: whether its rule is true of one item; of an item that it can't read it is not."""
        try:
            return bool(self.read(item))
        except ValueError:
            return False
        except Exception as error:
            raise rule_failed(self, item, error) from error

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value that was read, or None. Nothing, and what is not finite, is no value."""
        if value is None:
            return UNPARSEABLE
        if self.allowed and value not in self.allowed:
            return NOT_ALLOWED
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return OUT_OF_RANGE
        return UNPARSEABLE if isinstance(value, float) and not math.isfinite(value) else None

    def is_warning(self, problem: str) -> bool:
        """An optional value that can't be read becomes missing; a value may come from another column than in other
        rows; anything else wrong rejects the row.
        """
        return problem == OTHER_COLUMN or (problem == UNPARSEABLE and not self.required)

    def expected(self) -> str:
        """What is allowed, in words: for messages and documentation.

        >>> Field("guests", ("guests",), int, pa.int16(), "", low=1, high=64).expected()
        'a whole number from 1 to 64'
        """
        if self.allowed:
            return "one of " + ", ".join(f'"{value}"' for value in self.allowed)
        if pa.types.is_boolean(self.type):
            return "0, 1, false or true"
        if self.is_text:
            return "text"
        kind = "a whole number" if pa.types.is_integer(self.type) else "a number"
        if self.low is not None and self.high is not None and self.high < 2**53:
            return f"{kind} from {self.low:.15g} to {self.high:.15g}"
        if self.low is not None:
            return f"{kind} of at least {self.low:.15g}"
        return f"{kind} of at most {self.high:.15g}" if self.high is not None else kind


def rule_failed(item: Field, raw: str, error: Exception) -> ContractError:
    """A rule raised what rules don't raise: a defect of the contract, not of the data."""
    return ContractError(
        f"{item.name}: its rule raised {type(error).__name__} for {raw[:60]!r}. A rule raises ValueError for what it "
        "can't read; correct the contract."
    )


def composite_key(name: str, columns: Sequence[str], description: str) -> Field:
    """A key for records without a column of ids: a stable hash of several raw columns, from 0 to 2**63 - 1.

    Over HTTP it is optional: whoever sends one finds it in the answer. A text that holds the separator U+001F itself
    can't be read: other texts would have the same key.

    >>> key = composite_key("id", ("carrier", "flight"), "")
    >>> key.read_text("UA\x1f1545"), key.read_text("UA\x1f15\x1f45")
    ((507966951879642121, None), (None, 'unparseable'))
    """
    names: Any = columns if isinstance(columns, str) else tuple(columns)  # a text is told by `Contract.problems`
    read = _JoinedKey(len(names))
    return Field(name, names, read, pa.int64(), description, low=0, high=2**63 - 1, required=True, joined=True)


@dataclass(frozen=True)
class _JoinedKey:
    """The rule of a composite key of so many columns."""

    columns: int

    def __call__(self, raw: str) -> int:
        if raw.count(JOINER) != self.columns - 1:
            raise ValueError(f"{raw!r} holds the separator U+001F")
        return text_key(raw)


@dataclass(frozen=True)
class ListColumn:
    """A raw column that holds a list of texts, from which the fields with `from_list` are read."""

    name: str
    parse: Callable[[str], list[str]]
    """The raw text to its items; ValueError if it can't be read."""
    description: str


@dataclass(frozen=True)
class Bands:
    """The label of a number: which band it falls into.

    >>> bands = Bands((90.0, 180.0), ("Low", "Mid", "High"), minimum=10.0)
    >>> [bands.label_of(value) for value in (10, 90, 90.5, 1234)]
    ['Low', 'Low', 'Mid', 'High']
    """

    bins: tuple[float, ...]
    """Upper bounds, inclusive, of every band but the last, in ascending order."""
    labels: tuple[str, ...]
    minimum: float = -math.inf
    """A lower number is not a valid target: the row is rejected."""

    ordered = True

    def __post_init__(self) -> None:
        if not self.bins:
            raise ContractError("Bands without a bin are one label for all. Set at least one bin.")
        if len(self.labels) != len(self.bins) + 1 or len(set(self.labels)) != len(self.labels):
            raise ContractError(
                f"{len(self.bins)} bins need {len(self.bins) + 1} different labels, but there are {len(self.labels)}: "
                f"{', '.join(self.labels)}. Set as many labels as bins plus one."
            )
        if not all(label.strip() for label in self.labels):
            raise ContractError("A label is blank. Give every band a name.")
        # Written so that a NaN fails too.
        if not all(low < high for low, high in pairwise((self.minimum, *self.bins, math.inf))):
            raise ContractError(
                f"The minimum {self.minimum:g} and the bins {self.bins} must ascend and be finite. "
                "Put them in ascending order."
            )

    def label_of(self, value: float) -> str:
        """The label of a number: the band with the lowest bound that is not below it."""
        return self.labels[sum(value > bound for bound in self.bins)]

    def problem(self, value: float) -> str | None:
        """What is wrong with a number as a target, or None."""
        return BELOW_MINIMUM if value < self.minimum else None

    def ranges(self) -> dict[str, str]:
        """The numbers of each label, in words.

        >>> Bands((90.0,), ("Low", "High"), 10.0).ranges()
        {'Low': '10 to 90', 'High': 'over 90'}
        """
        bounds = [f"{bound:.15g}" for bound in self.bins]
        first = f"up to {bounds[0]}" if math.isinf(self.minimum) else f"{self.minimum:.15g} to {bounds[0]}"
        inner = [f"over {low}, up to {high}" for low, high in pairwise(bounds)]
        return dict(zip(self.labels, [first, *inner, f"over {bounds[-1]}"], strict=True))

    def override(
        self,
        bins: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
        minimum: float | None = None,
    ) -> "Bands":
        """The same with what the settings say. Raises ContractError as the constructor does."""
        return Bands(
            self.bins if bins is None else tuple(bins),
            self.labels if labels is None else tuple(labels),
            self.minimum if minimum is None else minimum,
        )

    def as_json(self) -> dict[str, Any]:
        minimum = None if math.isinf(self.minimum) else self.minimum
        return {"kind": "bands", "bins": list(self.bins), "labels": list(self.labels), "minimum": minimum}


@dataclass(frozen=True)
class Classes:
    """The label of a text: the text itself, one of a few."""

    labels: tuple[str, ...]
    ordered: bool = False
    """Whether the labels ascend, so that a mistake by two is worse than one by one."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2 or not all(map(str.strip, self.labels)):
            raise ContractError(
                f"Classes need two or more different labels that are not blank, but there are: "
                f"{', '.join(self.labels) or 'none'}."
            )

    def label_of(self, value: str) -> str:
        return value

    def problem(self, value: str) -> str | None:
        """What is wrong with a text as a target, or None."""
        return None if value in self.labels else NOT_ALLOWED

    def ranges(self) -> dict[str, str]:
        return {}

    def override(
        self,
        bins: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
        minimum: float | None = None,
    ) -> "Classes":
        """The same: classes have no bins, and their labels are the data's. Raises UsageError if any is given."""
        if bins is not None or labels is not None or minimum is not None:
            raise UsageError(
                "bins, labels and minimum are settings of bands; this contract predicts classes. Unset them."
            )
        return self

    def as_json(self) -> dict[str, Any]:
        return {"kind": "classes", "labels": list(self.labels), "ordered": self.ordered}


Label = Bands | Classes


def label_from_json(data: Mapping[str, Any]) -> Label:
    """What `as_json` of a label gave. Raises ContractError, KeyError, TypeError or ValueError for anything else."""
    if data["kind"] == "classes":
        return Classes(tuple(data["labels"]), bool(data["ordered"]))
    minimum = -math.inf if data["minimum"] is None else float(data["minimum"])
    return Bands(tuple(map(float, data["bins"])), tuple(data["labels"]), minimum)


class ContractRef(TypedDict):
    """How a dataset and a model name the contract that they were made under."""

    name: str
    version: int
    digest: str


@dataclass(frozen=True, eq=False)
class Contract:
    """Everything that the machinery needs to know about a problem.

    It is passed as an argument and pickled to workers; settings choose it (`load_contract`). `transforms.listings` is
    the contract of the notebooks, docs/bring-your-own-notebook.md shows how to write another.
    """

    name: str
    """What the model is called in the registry and over HTTP."""
    version: int
    """Raise it with every change that makes processed data or models incompatible."""
    record: str
    """What one row is called, as in "listing"."""
    records: str
    """What many are called, as in "listings"."""
    fields: tuple[Field, ...]
    key: str
    """The field that identifies a record: an int64, or a `composite_key`."""
    target: str
    """The field that is predicted from; a required one is required for training only."""
    label: Label
    label_column: str = ""
    """Where the label of a band is kept, in datasets and answers; the label of `Classes` is the target itself."""
    lists: tuple[ListColumn, ...] = ()
    baseline: tuple[str, ...] = ()
    """The features of the baseline model, in its own order; none: all."""
    breakdown: tuple[str, ...] = ()
    """By which text fields accuracy is broken down."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """A record as a caller sends it, for documents and the page."""
    other_tables: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Tables that are taken for the records by mistake: the columns that they are known by, and what to do."""
    generate: Callable[..., dict[str, Any]] | None = None
    """Writes raw records for the demo: `generate(rows, folder, shards=, bad_rows=, seed=)`."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contract) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, int, str]:
        return self.name, self.version, self.digest

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {item.name: item for item in self.fields}

    @property
    def key_field(self) -> Field:
        return self.by_name[self.key]

    @property
    def target_field(self) -> Field:
        return self.by_name[self.target]

    @cached_property
    def inputs(self) -> tuple[Field, ...]:
        """All fields but the target: what a caller may send."""
        return tuple(item for item in self.fields if item.name != self.target)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The inputs of a model, in the order of its feature vector."""
        return tuple(item.name for item in self.inputs if item.name != self.key)

    @cached_property
    def baseline_features(self) -> tuple[str, ...]:
        """The baseline's features, in its order."""
        return self.baseline or self.features

    @cached_property
    def coded(self) -> dict[str, str]:
        """The encoding of every feature that is a text."""
        return {name: coded for name in self.features if (coded := self.by_name[name].coded_as)}

    @cached_property
    def strict(self) -> tuple[str, ...]:
        """Features whose unknown value is an error, never a silent NaN."""
        return tuple(name for name, coded in self.coded.items() if coded != RANKED_WITH_RARE)

    def list_fields(self, column: str) -> tuple[Field, ...]:
        """The fields that are read from a list column."""
        return tuple(item for item in self.fields if item.from_list and item.columns == (column,))

    @property
    def label_name(self) -> str:
        """The column of the label, in datasets, scored rows and answers."""
        return self.label_column or self.target

    @cached_property
    def raw_columns(self) -> tuple[str, ...]:
        """Every raw column that is ever read: sources skip the others."""
        return tuple(dict.fromkeys(column for item in self.fields for column in item.columns))

    def accepted_schema(self, with_target: bool = True) -> pa.Schema:
        """The schema of accepted rows: the fields in order, then the label; `with_target=False` without these two."""
        fields = [pa.field(item.name, item.type) for item in self.fields if with_target or item.name != self.target]
        label = [pa.field(self.label_column, pa.string())] if with_target and self.label_column else []
        return pa.schema([*fields, *label])

    def choose_columns(self, available: Sequence[str], where: str, with_target: bool = True) -> list[str]:
        """Which of the columns `available` (at `where`) to read: every one that the contract names.

        Raises ContractError if a required field, or the target, has none of its raw columns or one occurs twice;
        `with_target=False` does without the target. An optional field may have none: `clean` warns of it.
        """
        fields = [item for item in self.fields if with_target or item.name != self.target]
        without = [item for item in fields if item.lacks_column(available)]
        if any(item.required or item.name == self.target for item in without):
            needed = list(dict.fromkeys(item.columns_in_words() for item in without))
            names = [next(name for name in item.columns if name not in available) for item in without]
            advice = "".join(f" {text}" for columns, text in self.other_tables if set(columns) <= set(available))
            error = missing_columns(where, needed, names, available, advice)
            raise ContractError(f'{error} The contract in force is "{self.name}" (NIGHTPRICE_CONTRACT).')
        named = {column for item in fields for column in item.columns}
        chosen = [name for name in available if name in named]
        if repeated := sorted({name for name in chosen if chosen.count(name) > 1}):
            raise ContractError(
                f'{where}: column "{repeated[0]}" occurs {chosen.count(repeated[0])} times. Leave one of them.'
            )
        return chosen

    @cached_property
    def digest(self) -> str:
        """A hash of what data and models depend on; not of descriptions, examples or the label's settings."""
        table = [
            [
                item.name,
                item.columns,
                str(item.type),
                item.low,
                item.high,
                item.allowed,
                item.required,
                item.coded_as,
                item.from_list,
                item.joined,
            ]
            for item in self.fields
        ]
        facts = [table, self.key, self.target, type(self.label).__name__, self.label_column]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def key_of(self, *texts: str) -> int:
        """The key of a record from the texts of its raw columns, in their order: to join results with records.

        Raises ValueError for texts that are no key.

        >>> from transforms.listings import CONTRACT
        >>> CONTRACT.key_of(" 1001 ")
        1001
        """
        if len(texts) != len(self.key_field.columns):
            raise ValueError(f"A key is read from {len(self.key_field.columns)} texts, not from {len(texts)}.")
        trimmed = [text.strip() for text in texts]
        if not all(trimmed):
            raise ValueError("A key is read from texts that are not blank.")
        key: int = self.key_field.read(JOINER.join(trimmed))
        return key

    @property
    def ref(self) -> ContractRef:
        """For manifests."""
        return {"name": self.name, "version": self.version, "digest": self.digest}

    def difference(self, ref: Mapping[str, Any] | None) -> str | None:
        """Why what was made under the contract `ref` does not belong to this one, as half a sentence, or None."""
        if ref is None:
            return f'under no contract that is recorded; this is contract "{self.name}"'
        if ref.get("name") != self.name:
            return f'under the contract "{ref.get("name")}"; this is contract "{self.name}"'
        if ref.get("version") != self.version:
            return f'under version {ref.get("version")} of the contract "{self.name}"; this is version {self.version}'
        if ref.get("digest") != self.digest:
            return f'under another table of fields of the contract "{self.name}", though its version is the same'
        return None

    def problems(self) -> list[str]:
        """What is wrong with the contract itself, a sentence each; empty if it can be used."""
        found: list[str] = []
        try:
            found.extend(_problems(self))
        except ContractError as error:
            found.append(str(error))
        except Exception as error:  # a bound, label or example of a type that no check foresees
            found.append(f"The contract can't be checked: {first_line(error)}.")
        return found


# Names that stored rows, blocks on their way to a store, and answers use themselves.
RESERVED_RAW = {"reasons", "source_file", "invalid_row"}
RESERVED_FIELDS = {"rejected", "warnings"}
RESERVED_ANSWERS = {"model", "probabilities", "problems", "error"}


def _problems(contract: Contract) -> Iterator[str]:
    names = [item.name for item in contract.fields]
    if not re.fullmatch(NAME_PATTERN, contract.name):
        yield f'The name "{contract.name}" must be of letters, digits, ".", "_" and "-", as in "late-flights".'
    wrong_types = list(_type_problems(contract))
    if wrong_types:
        yield from wrong_types
        return
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'Two fields are called "{name}". Rename one.'
    used = [
        (RESERVED_RAW, "raw column", contract.raw_columns),
        (RESERVED_FIELDS, "field or label", (*names, contract.label_name)),
        (RESERVED_ANSWERS, "key or label", (contract.key, contract.label_name)),
    ]
    for reserved, role, taken in used:
        for name in sorted(reserved & set(taken)):
            yield f'No {role} can be called "{name}": the name has another use. Rename it.'
    yield from _reference_problems(contract, names)
    yield from _list_problems(contract, names)
    if {contract.key, contract.target} <= set(names):
        yield from _role_problems(contract)
    for item in contract.fields:
        yield from _field_problems(contract, item)


_TYPES = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def _type_problems(contract: Contract) -> Iterator[str]:
    """What Python takes without a word, such as a text where a tuple of texts is meant."""
    texts: dict[str, Any] = {f"{item.name}: its raw columns are": item.columns for item in contract.fields}
    if isinstance(contract.label, Classes):
        texts["The classes are"] = contract.label.labels
    texts |= {f"{item.name}: its allowed values are": item.allowed for item in contract.fields}
    for what, value in texts.items():
        if isinstance(value, str):
            yield f'{what} the text "{value}". Write a tuple: ("{value}",).'
        elif not isinstance(value, tuple):
            yield f"{what} a {type(value).__name__}. Write a tuple."
    types: dict[str, Any] = {item.name: item.type for item in contract.fields}
    for name, kind in types.items():
        if not isinstance(kind, pa.DataType):
            yield f"{name}: {kind!r} is not an Arrow type. Write one, as in pa.int16()."
        elif not any(holds(kind) for holds in _TYPES):
            yield f"{name}: no field is of type {kind}. Use pa.string(), pa.bool_(), an integer or a float."


def _reference_problems(contract: Contract, names: list[str]) -> Iterator[str]:
    """Names of fields that are not fields, or not such as their use asks for."""
    for role, name in (("key", contract.key), ("target", contract.target)):
        if name not in names:
            yield f'The {role} "{name}" is not a field.{closest(name, names)} Fields: {", ".join(names)}.'
    for use, used in (("baseline", contract.baseline), ("breakdown", contract.breakdown)):
        for name in used:
            if name not in contract.features:
                yield f'The {use} names "{name}", which is not a feature.{closest(name, contract.features)}'
    for name in contract.breakdown:
        if name in names and not contract.by_name[name].is_text:
            yield f'The breakdown names "{name}", which is not a text.'
    for name in contract.example:
        if name not in names and name not in [column.name for column in contract.lists]:
            yield f'The example has "{name}", which is not a field.{closest(name, names)}'


def _list_problems(contract: Contract, names: list[str]) -> Iterator[str]:
    lists = [column.name for column in contract.lists]
    for name in sorted({name for name in lists if lists.count(name) > 1}):
        yield f'Two lists are called "{name}". Leave one of them.'
    for name in sorted(set(lists) & set(names)):
        yield f'A field and a list are called "{name}". Rename the field.'
    for name in lists:
        fields = [item.name for item in contract.fields if item.from_list and item.columns == (name,)]
        if not 1 <= len(fields) <= MOST_FUNCTIONS:
            yield f'{len(fields)} fields are read from the list "{name}": from 1 to {MOST_FUNCTIONS} can be.'


def _role_problems(contract: Contract) -> Iterator[str]:
    if contract.key_field.type != pa.int64():
        yield f'The key "{contract.key}" has the type {contract.key_field.type}: it must be int64 or a `composite_key`.'
    for role, item in (("key", contract.key_field), ("target", contract.target_field)):
        if not item.required:
            yield f'The {role} "{item.name}" must be a required field.'
    target, label = contract.target_field, contract.label
    if isinstance(label, Bands):
        if target.is_text:
            yield f'Bands divide a number, but the target "{target.name}" is a text. Use Classes.'
        if not contract.label_column or contract.label_column in contract.by_name:
            yield "The label of bands needs a `label_column` that is not a field."
        low, high = -math.inf if target.low is None else target.low, math.inf if target.high is None else target.high
        empty = [text for text, bound in zip(label.labels, label.bins, strict=False) if bound < low]
        empty += [text for text, bound in zip(label.labels[1:], label.bins, strict=True) if bound >= high]
        for text in empty:
            yield f'The label "{text}" can\'t occur: "{target.name}" is {target.expected()}.'
        return
    if not target.is_text:
        yield f'Classes are texts, but the target "{target.name}" is of type {target.type}. Use Bands.'
    if contract.label_column:
        yield "The label of classes is the target itself: leave `label_column` out."
    for text in label.labels:
        value, problem = target.read_text(text)
        if problem or value != text:
            yield f'The label "{text}" can\'t occur: the rule of "{target.name}" reads it as {value!r}.'


def _field_problems(contract: Contract, item: Field) -> Iterator[str]:
    if item.encoding is not None and item.encoding not in ENCODINGS:
        yield (
            f'{item.name}: there is no encoding "{item.encoding}".{closest(item.encoding, ENCODINGS)} '
            f"Encodings: {', '.join(ENCODINGS)}."
        )
    if item.encoding == FIXED_ORDER and not item.allowed:
        yield f"{item.name}: the encoding {FIXED_ORDER} needs the allowed values, in their order."
    yield from _value_problems(item)
    if not item.columns:
        yield f"{item.name}: no raw column is named."
    if item.from_list:
        if not pa.types.is_boolean(item.type):
            yield f"{item.name}: a field that is read from a list must be of type bool."
        if item.required:
            yield f"{item.name}: a field that is read from a list can't be required: without a list it is false."
        known = [column.name for column in contract.lists]
        if len(item.columns) != 1 or item.columns[0] not in known:
            yield f'{item.name}: "{" ".join(item.columns)}" is not among the lists of the contract.'
    else:
        yield from _example_problems(contract, item)


def _value_problems(item: Field) -> Iterator[str]:
    """A rule, a type and bounds that do not go together."""
    if item.read is readers.text and not item.is_text:
        yield f"{item.name}: the rule `text` reads a text, but the type is {item.type}. Use `number` or `integer`."
    if pa.types.is_integer(item.type):
        lowest, highest = _limits(item.type)
        if item.low is None or item.high is None or not lowest <= item.low <= item.high <= highest:
            yield f"{item.name}: set low and high, within what an {item.type} holds: {lowest} to {highest}."
    elif item.low is not None and item.high is not None and item.low > item.high:
        yield f"{item.name}: low, {item.low}, is above high, {item.high}."
    if item.is_text and (item.low is not None or item.high is not None):
        yield f"{item.name}: a text has no low and high."
    if item.read in (readers.number, readers.amount) and pa.types.is_integer(item.type):
        yield f"{item.name}: the rule reads fractions, but the type is {item.type}. Use `integer`, or a float type."
    for value in item.allowed if item.is_text else ():
        read, _ = item.read_text(value)
        if read != value:
            yield f'{item.name}: the allowed value "{value}" can\'t occur: its rule does not read it as itself.'


def _limits(type: pa.DataType) -> tuple[int, int]:
    if pa.types.is_unsigned_integer(type):
        return 0, int(2**type.bit_width) - 1
    return -int(2 ** (type.bit_width - 1)), int(2 ** (type.bit_width - 1)) - 1


def _example_problems(contract: Contract, item: Field) -> Iterator[str]:
    value = contract.example.get(item.name)
    if value is None:
        if item.required and item.name != contract.target and not item.joined:
            yield f"{item.name}: the field is required, but the example does not have it."
        return
    if item.joined or pa.types.is_boolean(item.type):
        return
    # Over HTTP a number is a value already, whatever its raw text looks like; a text is read by its rule, as in batch.
    if item.is_text:
        is_right = isinstance(value, str)
    elif pa.types.is_integer(item.type):
        is_right = isinstance(value, int) and not isinstance(value, bool) and not item.problem(value)
    else:
        is_right = isinstance(value, (int, float)) and not isinstance(value, bool) and not item.problem(value)
    if not is_right:
        yield f"{item.name}: the example is {value!r}, expected {item.expected()}."
    elif item.is_text:
        read, problem = item.read_text(value)
        if problem or read != value:
            yield f"{item.name}: its rule reads its own example {value!r} as {read!r} ({problem or 'another value'})."


def load_contract(reference: str, *, check: bool = True) -> Contract:
    """The contract that a setting names as MODULE:NAME, such as "transforms.listings:CONTRACT".

    The current folder is searched too. Raises UsageError if there is no such object, or the contract itself is wrong
    (not with `check=False`).
    """
    module, _, name = reference.partition(":")
    if not name:
        raise UsageError(
            f'The contract "{reference}" names a module and no object. Set it to MODULE:NAME, as in '
            "transforms.listings:CONTRACT."
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        contract = getattr(importlib.import_module(module), name)
    except NightpriceError:
        raise
    except (Exception, SystemExit) as error:  # the module is a user's own, and may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            fix = "Start the command in the folder of the module, or put that folder on PYTHONPATH."
        elif module in sys.modules:
            fix = "Set it to MODULE:NAME, as in transforms.listings:CONTRACT."
        else:
            fix = "Correct the module."
        what = f"{first_line(error)}{_line_of(error, module)}"
        raise UsageError(f'The contract "{reference}" can\'t be loaded: {what}. {fix}') from error
    if not isinstance(contract, Contract):
        raise UsageError(f'The contract "{reference}" is a {type(contract).__name__}. Set it to an object of Contract.')
    if check and (problems := contract.problems()):
        raise UsageError(f'The contract "{reference}" can\'t be used. {" ".join(problems)}')
    return contract


def _line_of(error: BaseException, module: str) -> str:
    """Where in a module an error arose, for a message; of a syntax error Python says it already."""
    file = module.replace(".", os.sep)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith((f"{file}.py", os.path.join(file, "__init__.py")))
    ]
    return f" (line {lines[-1]} of {module})" if lines else ""
