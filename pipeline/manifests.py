"""What a manifest holds: the page of a dataset, or of scored rows, that names the live version."""

from typing import Annotated, Any, NotRequired, Required, cast

from pydantic import Field, TypeAdapter, ValidationError

# pydantic can't read that of `typing` before Python 3.12.
from typing_extensions import TypedDict

from nightprice.defaults import NAME_PATTERN
from nightprice.errors import ContractError
from nightprice.plain_json import parse_json
from registry.manifest import CheckedContractRef, Count, LabelJson, first_problem
from transforms.contract import ContractRef


class RowCounts(TypedDict):
    """Every row that was read is either accepted or rejected."""

    read: int
    accepted: int
    rejected: int


class SourceDescription(TypedDict, total=False):
    """One thing that was read: a file, or a table."""

    path: Required[str]
    """The path of a file, or an address without its password."""
    size: int | None
    """In bytes, of a file."""
    modified: str | None
    """When a file was last changed, as its store tells it."""
    etag: str | None
    """What an HTTP server calls this state of the file."""


class DatasetManifest(TypedDict):
    """What `process` and `predict` publish together with their rows."""

    version: str
    rows: RowCounts
    reasons: dict[str, int]
    """How many rows were rejected for each `field:problem`; a row may have several."""
    warnings: dict[str, int]
    """How many accepted rows have each `field:problem`."""
    notes: NotRequired[list[str]]
    """What is strange in the accepted rows as a whole, in a sentence each."""
    sources: list[SourceDescription]
    """What was read; of many files the first 1,000."""
    source_count: NotRequired[int]
    left_out: NotRequired[list[str]]
    """The files of the source that were not read, because their endings name no known format; the first 1,000."""
    left_out_count: NotRequired[int]
    contract: ContractRef
    label: NotRequired[dict[str, Any]]
    """How its rows were labelled; of scored rows, the model's labels."""
    settings: dict[str, Any]
    code_version: str
    libraries: dict[str, str]
    """The versions of Python and of the libraries that results depend on."""
    started: str
    """ISO 8601, in UTC."""
    finished: str
    ray_job_id: str
    model: NotRequired[str]
    """Of scored rows: the model version that scored them."""


class _ReadBack(TypedDict):
    """The entries that a reader relies on. The others are for people, and older datasets have fewer."""

    # It becomes part of a path.
    version: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    rows: dict[str, Count]
    contract: NotRequired[CheckedContractRef]
    label: NotRequired[LabelJson]


_SCHEMA = TypeAdapter(_ReadBack)
MOST_BYTES = 16 * 2**20


def parse_manifest(text: str | bytes, where: str) -> DatasetManifest:
    """The manifest that a store holds as JSON; `where` is its address without secrets.

    Raises ValueError for a text that is too long or not JSON, ContractError for one that is not the manifest of a
    dataset.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES // 2**20} MiB")
    manifest = parse_json(text)
    try:
        _SCHEMA.validate_python(manifest, strict=True)
    except ValidationError as error:
        raise ContractError(
            f'"{where}" is not the manifest of a dataset: {first_problem(error)}. Make the dataset anew with '
            "`nightprice process`."
        ) from None
    return cast(DatasetManifest, manifest)
