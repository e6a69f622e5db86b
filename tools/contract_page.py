"""The contract of a listing as a page for people: `python -m tools.contract_page > docs/data-contract.md`."""

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise

from transforms.clean import INVALID_ROW, INVALID_ROW_REASON, REASONS, SOURCE_FILE
from transforms.contract import (
    BELOW_MINIMUM,
    CATEGORY,
    CONTRACT_VERSION,
    FEATURES,
    FIELDS,
    MISSING,
    NOT_ALLOWED,
    OUT_OF_RANGE,
    PRICE,
    UNPARSEABLE,
    Field,
    Pricing,
    accepted_schema,
    price_category,
)
from transforms.encode import UNKNOWN
from transforms.listings.amenities import AMENITIES

_PROBLEMS = {
    MISSING: "a required field is blank or its column is null",
    UNPARSEABLE: "the text can't be read as a value of the field's type",
    NOT_ALLOWED: "the value is none of the allowed ones",
    OUT_OF_RANGE: "the number is outside the allowed range",
    BELOW_MINIMUM: "the price is lower than the minimum price",
    UNKNOWN: "batch prediction only: the model has not learned this category",
}
# Arrow prints its floats by their names in C.
_TYPES = {"float": "float32", "double": "float64"}


def contract_page() -> str:
    """Everything that `FIELDS` and its companions say, as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# The data contract"
    yield ""
    yield f"Contract version {CONTRACT_VERSION}. This page is printed from `FIELDS` in `transforms/contract.py`:"
    yield "change the table there, then run `python -m tools.contract_page > docs/data-contract.md`."
    yield ""
    yield from _fields()
    yield from _reading()
    yield from _amenities()
    yield from _prices(Pricing())
    yield from _rejection()
    yield from _features()


def _fields() -> Iterator[str]:
    yield "## Fields"
    yield ""
    yield "Where a field has two raw columns, the first that is not blank in a row counts."
    yield ""
    yield "| field | raw column | type | allowed | required | meaning |"
    yield "|---|---|---|---|---|---|"
    for item in FIELDS:
        columns = ", else ".join(f"`{name}`" for name in item.columns)
        kind = _TYPES.get(str(item.type), str(item.type))
        yield f"| `{item.name}` | {columns} | {kind} | {item.expected()} | {_required(item)} | {item.description} |"
    yield ""


def _required(item: Field) -> str:
    return "for training" if item is PRICE else "yes" if item.required else "no"


def _reading() -> Iterator[str]:
    yield "## How a raw text is read"
    yield ""
    yield "Each rule is a function of one text. Batch processing calls the same function once per distinct value."
    yield ""
    readers: dict[Callable[[str], object], list[str]] = {}
    for item in FIELDS:
        if not item.of_items:
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


def _amenities() -> Iterator[str]:
    yield "## What counts as an amenity"
    yield ""
    yield "`amenities` is a JSON list as text. A whole item must match, case aside; no list means none."
    yield ""
    for name, pattern in AMENITIES.items():
        yield f"- `{name}`: `{pattern}`"
    yield ""


def _prices(pricing: Pricing) -> Iterator[str]:
    yield f"## From price to `{CATEGORY}`"
    yield ""
    yield "Bins, labels and the minimum price are settings; they travel with datasets and models. The defaults:"
    yield ""
    yield "| category | price |"
    yield "|---|---|"
    bounds = [f"{bound:g}" for bound in pricing.bins]
    ranges = [f"{pricing.minimum:g} to {bounds[0]}"]
    ranges += [f"over {low}, up to {high}" for low, high in pairwise(bounds)]
    for label, words in zip(pricing.labels, [*ranges, f"over {bounds[-1]}"], strict=True):
        yield f"| {label} | {words} |"
    yield ""
    yield from _function(price_category, f"`{price_category.__name__}`")


def _rejection() -> Iterator[str]:
    yield "## Rejected rows and warnings"
    yield ""
    yield "Every raw row is either accepted or rejected. A rejected row keeps its raw texts, and besides:"
    yield f"`{REASONS}` (all of them, each as `field:problem`), `{SOURCE_FILE}`, and `{INVALID_ROW}`"
    yield f"(the text of a line that is no valid row; its reason is `{INVALID_ROW_REASON}`)."
    yield ""
    yield "| problem | when |"
    yield "|---|---|"
    for problem, when in _PROBLEMS.items():
        yield f"| `{problem}` | {when} |"
    yield ""
    yield f"`{UNPARSEABLE}` on a field that is not required is a warning: the value becomes missing, the row is kept,"
    yield "and the manifest counts it."
    yield ""


def _features() -> Iterator[str]:
    yield "## What comes out"
    yield ""
    yield "Accepted rows have these columns: " + ", ".join(f"`{name}`" for name in accepted_schema().names) + "."
    yield ""
    yield (
        f"A model sees {len(FEATURES)} of them as float32, missing as NaN, in this order: "
        + ", ".join(f"`{name}`" for name in FEATURES)
        + "."
    )


if __name__ == "__main__":
    print(contract_page(), end="")
