"""Addresses, clients, errors and column types of BigQuery."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from nightprice.errors import ContractError
from pipeline.io.stores import StoreError

if TYPE_CHECKING:
    from google.cloud import bigquery

EXAMPLE = "bigquery://project/dataset.table or bigquery://project?query=SELECT+… (URL-encoded)"


@dataclass(frozen=True)
class Address:
    """A table, or the result of a query."""

    shown: str
    project: str
    dataset: str
    table: str
    query: str | None

    def to_write(self) -> str:
        """The table to write; StoreError for a query."""
        if self.query is not None:
            raise StoreError(
                f'"{self.shown}" cannot be written to: a sink is one table, as in bigquery://project/dataset.table.'
            )
        return self.table

    @property
    def relation(self) -> str:
        """The table or the query, for a FROM clause."""
        return f"`{self.id_of(self.table)}`" if self.query is None else f"(\n{self.query}\n)"

    def id_of(self, table: str) -> str:
        """The full name of a table of this dataset."""
        return f"{self.project}.{self.dataset}.{table}"

    def of_table(self, table: str) -> str:
        """The address of another table of this dataset."""
        return f"bigquery://{self.project}/{self.dataset}.{table}"


def parse(uri: str) -> Address:
    """Take an address apart; StoreError if it names neither a table nor a query."""
    split = urlsplit(uri)
    dataset, _, table = split.path.strip("/").partition(".")
    query = dict(parse_qsl(split.query)).get("query")
    names = bool(dataset) and bool(table) and not any(sign in table for sign in "./`")
    if not split.netloc or split.fragment or names == bool(query):
        raise StoreError(f'"{uri}" must name one table or one query, as in {EXAMPLE}.')
    return Address(uri, split.netloc, dataset, table, query.strip().rstrip(";") if query else None)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what Google's libraries raise into StoreError, one sentence with the mend."""
    try:
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise StoreError(
            f'"{uri}" needs the extra "bigquery". Install it: pip install "nightprice[bigquery]".'
        ) from error
    try:
        yield
    except GoogleAuthError as error:
        mend = "Log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS."
        raise StoreError(f'"{uri}": {_line(error)}. {mend}') from error
    except Forbidden as error:
        raise StoreError(
            f'"{uri}": {_line(error)}. Ask for the roles BigQuery Data Editor, Job User and Read Session User.'
        ) from error
    except NotFound as error:
        raise StoreError(
            f'"{uri}": {_line(error)}. Check project, dataset and table; datasets are not made here.'
        ) from error
    except (GoogleAPICallError, RetryError) as error:
        raise StoreError(f'"{uri}": {_line(error)}. Nothing was published; run it again.') from error


def _line(error: Any) -> str:
    return str(getattr(error, "message", None) or error).splitlines()[0].rstrip(". ")


def client_of(project: str) -> "bigquery.Client":
    """Tables and jobs, with the credentials of the environment."""
    from google.cloud import bigquery

    return bigquery.Client(project=project)


def fields_of(schema: pa.Schema) -> "list[bigquery.SchemaField]":
    """The columns of a table for rows of an Arrow schema; ContractError for a type without a counterpart."""
    from google.cloud.bigquery import SchemaField

    return [SchemaField(item.name, _type_of(item.name, item.type)) for item in schema]


def _type_of(name: str, kind: pa.DataType) -> str:
    checks = {
        "INTEGER": pa.types.is_integer,
        "FLOAT": pa.types.is_floating,
        "BOOLEAN": pa.types.is_boolean,
        "STRING": lambda item: pa.types.is_string(item) or pa.types.is_dictionary(item),
        "TIMESTAMP": pa.types.is_timestamp,
        "DATE": pa.types.is_date,
    }
    found = next((word for word, check in checks.items() if check(kind)), None)
    if found is None:
        raise ContractError(f'Column "{name}" of type {kind} has no counterpart in BigQuery: cast it first.')
    return found
