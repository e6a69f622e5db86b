"""A contract as a page for people: `python -m tools.contract_page > docs/data-contract.md`."""

import inspect
import sys
from collections.abc import Callable, Iterator

from nightprice.defaults import DEFAULT_CONTRACT, DEFAULT_MISSING_VALUES
from transforms.clean import BLANK_ROW_REASON, INVALID_ROW, INVALID_ROW_REASON, NOT_UTF8_REASON, REASONS, SOURCE_FILE
from transforms.contract import (
    BELOW_MINIMUM,
    ENCODINGS,
    MISSING,
    NO_COLUMN,
    NOT_ALLOWED,
    OTHER_COLUMN,
    OUT_OF_RANGE,
    UNKNOWN,
    UNPARSEABLE,
    Bands,
    Contract,
    Field,
    load_contract,
)
from transforms.listings.amenities import AMENITIES

_PROBLEMS = {
    MISSING: "a required field is blank or its column is null",
    UNPARSEABLE: "the text can't be read as a value of the field's type",
    NOT_ALLOWED: "the value is not one of the allowed ones",
    OUT_OF_RANGE: "the number is outside the allowed range",
    BELOW_MINIMUM: "the target is lower than the minimum",
    UNKNOWN: "batch prediction only: the model has not learned this value",
}
# Arrow prints its floats by their names in C.
_TYPES = {"float": "float32", "double": "float64"}
# What tells more about a rule of a list's items than its docstring.
_PATTERNS = {"amenities": AMENITIES}


def contract_page(contract: Contract) -> str:
    """Everything that a contract says, as Markdown."""
    return "\n".join(_lines(contract)) + "\n"


def _lines(contract: Contract) -> Iterator[str]:
    yield "# The data contract"
    yield ""
    yield f"Contract `{contract.name}`, version {contract.version}. This page is printed from the contract: change the"
    yield "table there (`transforms/listings`), then run `python -m tools.contract_page > docs/data-contract.md`."
    yield ""
    yield from _fields(contract)
    yield from _reading(contract)
    yield from _lists(contract)
    yield from _label(contract)
    yield from _encodings(contract)
    yield from _rejection(contract)
    yield from _features(contract)


def _fields(contract: Contract) -> Iterator[str]:
    yield "## Fields"
    yield ""
    words = ", ".join(f"`{word}`" for word in DEFAULT_MISSING_VALUES)
    yield "Where a field has two raw columns, the first that is not blank in a row counts. In every source, blank is"
    yield f"also what R, pandas and databases write for nothing, case aside: {words}"
    yield "(setting `missing_values`; if a place is really called None, list the others only). What the contract"
    yield "allows is never blank. Over HTTP a missing value is `null`; these words are texts there."
    yield ""
    yield "| field | raw column | type | allowed | required | meaning |"
    yield "|---|---|---|---|---|---|"
    for item in contract.fields:
        columns = ", else ".join(f"`{name}`" for name in item.columns)
        kind = _TYPES.get(str(item.type), str(item.type))
        required = _required(contract, item)
        yield f"| `{item.name}` | {columns} | {kind} | {item.expected()} | {required} | {item.description} |"
    yield ""


def _required(contract: Contract, item: Field) -> str:
    return "for training" if item.name == contract.target else "yes" if item.required else "no"


def _reading(contract: Contract) -> Iterator[str]:
    yield "## How a raw text is read"
    yield ""
    yield "Each rule is a function of one text. Batch processing calls the same function once per distinct value."
    yield ""
    readers: dict[Callable[[str], object], list[str]] = {}
    for item in contract.fields:
        if not item.from_list:
            readers.setdefault(item.read, []).append(f"`{item.name}`")
    for read, names in readers.items():
        yield from _function(read, ", ".join(names))


def _function(function: Callable[..., object], title: str) -> Iterator[str]:
    """The docstring of a function: its prose, then its examples as code."""
    prose, *examples = (inspect.getdoc(function) or "").partition(">>>")
    yield f"### {title}"
    yield ""
    yield prose.strip()
    yield ""
    if examples[1]:
        yield "```python"
        yield ">>>" + examples[1].rstrip()
        yield "```"
        yield ""


def _lists(contract: Contract) -> Iterator[str]:
    for column in contract.lists:
        yield f"## What is read from `{column.name}`"
        yield ""
        yield f"{column.description} A field is true if any item of the list matches, false without a list, and missing"
        yield f"if the list can't be read (warning `{column.name}:{UNPARSEABLE}`)."
        yield ""
        yield from _function(column.parse, "How the list is read")
        for item in contract.list_fields(column.name):
            pattern = _PATTERNS.get(column.name, {}).get(item.name)
            yield f"- `{item.name}`: " + (f"`{pattern}` (the whole item, case aside)" if pattern else item.description)
        yield ""


def _label(contract: Contract) -> Iterator[str]:
    yield f"## From `{contract.target}` to `{contract.label_name}`"
    yield ""
    if not isinstance(contract.label, Bands):
        yield f"The label is the value itself: one of {', '.join(contract.label.labels)}."
        yield ""
        return
    yield "Bins, labels and the minimum are settings; they travel with datasets and models. An upper bound"
    yield "belongs to its band. The defaults:"
    yield ""
    yield f"| label | {contract.target} |"
    yield "|---|---|"
    for label, words in contract.label.ranges().items():
        yield f"| {label} | {words} |"
    yield ""


def _encodings(contract: Contract) -> Iterator[str]:
    yield "## How a text becomes a number"
    yield ""
    for name, encoding in contract.coded.items():
        yield f"- `{name}`: {encoding}: {ENCODINGS[encoding]}."
    yield ""


def _rejection(contract: Contract) -> Iterator[str]:
    yield "## Rejected rows and warnings"
    yield ""
    yield "Every raw row is either accepted or rejected. A rejected row keeps its raw texts, and besides:"
    yield f"`{REASONS}` (all of them, each as `field:problem`), `{SOURCE_FILE}`, and `{INVALID_ROW}`"
    yield f"(the text of a line that is not a valid row). Rows as a whole have a single reason: `{INVALID_ROW_REASON}`"
    yield f"(its number of values is wrong, or it is not a JSON object), `{NOT_UTF8_REASON}` or `{BLANK_ROW_REASON}`."
    yield ""
    yield "| problem | when |"
    yield "|---|---|"
    for problem, when in _PROBLEMS.items():
        yield f"| `{problem}` | {when} |"
    yield ""
    yield f"`{UNPARSEABLE}` on a field that is not required is a warning: the value becomes missing, the row is kept,"
    yield f"and the manifest counts it. So is `{NO_COLUMN}`: the source has no column of that field or list,"
    yield f"which is then missing; and `{OTHER_COLUMN}`: some rows have the field in another raw column than the rest."
    yield ""
    yield f"A row that lacks nothing but `{contract.target}` is rejected, but does not count for `max_rejected`: no"
    yield "model is trained on it, and it is no sign of a broken source. A run that accepts no row publishes nothing."
    yield ""


def _features(contract: Contract) -> Iterator[str]:
    columns = contract.accepted_schema().names
    yield "## What comes out"
    yield ""
    yield "Accepted rows have these columns: " + ", ".join(f"`{name}`" for name in columns) + "."
    yield ""
    yield (
        f"A model sees {len(contract.features)} of them as float32, missing as NaN, in this order: "
        + ", ".join(f"`{name}`" for name in contract.features)
        + "."
    )


if __name__ == "__main__":
    print(contract_page(load_contract(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_CONTRACT)), end="")
