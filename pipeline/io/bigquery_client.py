"""Addresses, clients, errors and column types of BigQuery."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from pipeline.io.base import StoreError
from transforms.errors import ContractError, closest

if TYPE_CHECKING:
    from google.cloud import bigquery, bigquery_storage

# An emulator's address: the first is Google's own variable, for REST; the second is ours, for the storage API (gRPC).
REST_EMULATOR = "BIGQUERY_EMULATOR_HOST"
STORAGE_EMULATOR = "BIGQUERY_STORAGE_EMULATOR_HOST"
EXAMPLE = "bigquery://project/dataset.table or bigquery://project?query=SELECT+… (URL-encoded)"


@dataclass(frozen=True)
class Address:
    """A table, or the result of a query."""

    uri: str
    project: str
    dataset: str
    table: str
    query: str | None

    def to_write(self) -> str:
        """The table to write; StoreError for a query."""
        if self.query is not None:
            raise StoreError(f'"{self.uri}" cannot be written to: a sink is one table, as in bigquery://project/dataset.table.')
        return self.table

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
    if not split.netloc or split.fragment or names == (query is not None):
        raise StoreError(f'"{uri}" must name one table or one query, as in {EXAMPLE}.')
    return Address(uri, split.netloc, dataset, table, query)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what Google's libraries raise into StoreError, one sentence with the mend."""
    try:
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise StoreError(f'"{uri}" needs the extra "bigquery". Install it: pip install "nightprice[bigquery]".') from error
    try:
        yield
    except GoogleAuthError as error:
        mend = "Log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS."
        raise StoreError(f'"{uri}": {_line(error)}. {mend}') from error
    except Forbidden as error:
        raise StoreError(f'"{uri}": {_line(error)}. Ask for the roles BigQuery Data Editor, Job User and Read Session User.') from error
    except NotFound as error:
        raise StoreError(f'"{uri}": {_line(error)}. Check project, dataset and table; datasets are not made here.') from error
    except (GoogleAPICallError, RetryError) as error:
        raise StoreError(f'"{uri}": {_line(error)}. Nothing was published; run it again.') from error


def _line(error: Any) -> str:
    return str(getattr(error, "message", None) or error).splitlines()[0].rstrip(". ")


def rest_client(project: str) -> "bigquery.Client":
    """Tables and jobs, with the credentials of the environment; an emulator needs none."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(project=project, credentials=AnonymousCredentials() if os.environ.get(REST_EMULATOR) else None)


def read_client() -> "bigquery_storage.BigQueryReadClient":
    """Rows, over the storage API."""
    from google.cloud import bigquery_storage

    emulator = os.environ.get(STORAGE_EMULATOR)
    if not emulator:
        return bigquery_storage.BigQueryReadClient()
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    return bigquery_storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=grpc.insecure_channel(emulator)))


def missing_table(client: "bigquery.Client", address: Address) -> StoreError | None:
    """The error to raise if the table of an address is not there."""
    there = [item.table_id for item in client.list_tables(f"{address.project}.{address.dataset}")]
    if address.table in there:
        return None
    listed = f"Tables there: {', '.join(sorted(there)[:20])}." if there else "No table is there."
    return StoreError(f'"{address.uri}": there is no table "{address.table}".{closest(address.table, there)} {listed}')


def fields_of(schema: pa.Schema) -> "list[bigquery.SchemaField]":
    """The columns of a table for rows of an Arrow schema; ContractError for a type without a counterpart."""
    from google.cloud.bigquery import SchemaField

    def field_of(item: pa.Field) -> SchemaField:
        is_list = pa.types.is_list(item.type)
        return SchemaField(
            item.name, _type_of(item.name, item.type.value_type if is_list else item.type), "REPEATED" if is_list else "NULLABLE"
        )

    return [field_of(item) for item in schema]


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
