"""Addresses, clients, errors and column types of BigQuery."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pyarrow as pa

from nightprice.address import Address, parse_address
from nightprice.errors import ContractError, first_line
from pipeline.io.stores import AddressError, StoreError

if TYPE_CHECKING:
    from google.cloud import bigquery

EXAMPLE = "bigquery://project/dataset.table or bigquery://project?query=SELECT+… (URL-encoded)"


@dataclass(frozen=True)
class BigQueryAddress:
    """A table, or the result of a query."""

    address: Address
    project: str
    dataset: str
    """Empty for a query."""
    table: str | None
    query: str | None

    @property
    def display(self) -> str:
        """The whole address, for messages."""
        return self.address.display

    def writable_table(self) -> str:
        """The table to write; StoreError for a query."""
        if self.table is None:
            raise StoreError(
                f'"{self.address}" cannot be written to: a sink is one table, as in bigquery://project/dataset.table.'
            )
        return self.table

    @property
    def relation(self) -> str:
        """The table or the query, for a FROM clause."""
        return f"(\n{self.query}\n)" if self.table is None else f"`{self.id_of(self.table)}`"

    def id_of(self, table: str) -> str:
        """The full name of a table of this dataset."""
        return f"{self.project}.{self.dataset}.{table}"

    def of_table(self, table: str) -> Address:
        """The address of another table of this dataset."""
        return parse_address(f"bigquery://{self.project}/{self.dataset}.{table}")


def bigquery_address(address: Address) -> BigQueryAddress:
    """Take an address apart; StoreError if it names neither a table nor a query."""
    parts = address.parts
    dataset, _, table = parts.path.strip("/").partition(".")
    query = dict(parse_qsl(parts.query)).get("query")
    names_table = bool(dataset) and bool(table) and not any(sign in table for sign in "./`")
    if not parts.netloc or parts.fragment or names_table == bool(query):
        raise AddressError(f'"{address}" must name one table or one query, as in {EXAMPLE}.')
    if query:
        return BigQueryAddress(address, parts.netloc, "", None, query.strip().rstrip(";"))
    return BigQueryAddress(address, parts.netloc, dataset, table, None)


@contextmanager
def store_errors(display: str) -> Iterator[None]:
    """Turn what Google's libraries raise into StoreError, one sentence that says what to do."""
    try:
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise StoreError(
            f'"{display}" needs the extra "bigquery". Install it: pip install "nightprice[bigquery]".'
        ) from error
    try:
        yield
    except GoogleAuthError as error:
        raise StoreError(
            f'"{display}": {_line(error)}. Log in with `gcloud auth application-default login`, or set '
            "GOOGLE_APPLICATION_CREDENTIALS."
        ) from error
    except Forbidden as error:
        raise StoreError(
            f'"{display}": {_line(error)}. Ask for the roles BigQuery Data Editor, Job User and Read Session User.'
        ) from error
    except NotFound as error:
        raise StoreError(
            f'"{display}": {_line(error)}. Check project, dataset and table; datasets are not created here.'
        ) from error
    except (GoogleAPICallError, RetryError) as error:
        raise StoreError(f'"{display}": {_line(error)}. Nothing was published; run it again.') from error


def _line(error: Any) -> str:
    return first_line(getattr(error, "message", None) or error)


def client_of(project: str) -> "bigquery.Client":
    """Tables and jobs, with the credentials of the environment."""
    from google.cloud import bigquery

    return bigquery.Client(project=project)


def fields_of(schema: pa.Schema) -> "list[bigquery.SchemaField]":
    """The columns of a table for rows of an Arrow schema; ContractError for a type without a counterpart."""
    from google.cloud.bigquery import SchemaField

    return [SchemaField(column.name, _type_of(column.name, column.type)) for column in schema]


def _type_of(name: str, kind: pa.DataType) -> str:
    types = {
        "INTEGER": pa.types.is_integer,
        "FLOAT": pa.types.is_floating,
        "BOOLEAN": pa.types.is_boolean,
        "STRING": lambda type: pa.types.is_string(type) or pa.types.is_dictionary(type),
        "TIMESTAMP": pa.types.is_timestamp,
        "DATE": pa.types.is_date,
    }
    bigquery_type = next((type_name for type_name, check in types.items() if check(kind)), None)
    if bigquery_type is None:
        raise ContractError(f'Column "{name}" of type {kind} has no counterpart in BigQuery: cast it first.')
    return bigquery_type
