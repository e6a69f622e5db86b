"""Tables of BigQuery: read as parallel streams of one snapshot, written by load jobs and swapped in one transaction.

    bigquery://project/dataset.table        bigquery://project?query=SELECT+…

Ray's own connector reads every column, appends without regard to retries and cannot swap; so the pipeline speaks to
the same two Google clients itself.
"""

import io
import json
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data._internal.execution.interfaces import TaskContext
from ray.data.block import Block, BlockAccessor

from pipeline.io.base import Columns, Manifest, Seal, StoreError, sink, source
from pipeline.io.bigquery_client import Address, fields_of, missing_table, parse, read_client, rest_client, store_errors
from pipeline.io.databases import as_json, is_nested
from pipeline.io.files import new_version
from pipeline.io.parts import ACCEPTED, REJECTED, WARNINGS, PartsSink, Tally
from transforms.clean import REJECTED_SCHEMA, SOURCE_FILE
from transforms.errors import NightpriceError

logger = logging.getLogger(__name__)

# What a run leaves behind (a refused version's rejected rows, a dead run's staging tables) goes by itself.
STAGING_DAYS = 7
MANIFEST = "manifest"


@source("bigquery")
def read_bigquery(uri: str, columns: Columns) -> ray.data.Dataset:
    """The chosen columns of a table or query, one task a stream; all streams see the table as of one moment.

    Lists arrive as JSON text. Raises StoreError when the table is not there or may not be read.
    """
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    address = parse(uri)
    with store_errors(uri):
        table, there = _table(address)
        chosen = columns(there, uri)
        wanted = ReadSession(table=table, data_format=DataFormat.ARROW, read_options={"selected_fields": chosen})
        session = read_client().create_read_session(parent=f"projects/{address.project}", read_session=wanted)
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    # A table without rows has no streams; its columns are still to be told.
    rows = [{"stream": stream.name} for stream in session.streams] or [{"stream": ""}]
    read = partial(_read_streams, uri=uri, schema=schema)
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(read, batch_size=1, batch_format="pyarrow")


def _table(address: Address) -> tuple[str, list[str]]:
    """The table to read, by its resource name, and its columns; views and queries are run into a table first."""
    client = rest_client(address.project)
    query = address.query
    if query is None:
        if error := missing_table(client, address):
            raise error
        found = client.get_table(address.id_of(address.table))
        query = f"SELECT * FROM `{address.id_of(address.table)}`" if found.table_type != "TABLE" else None
    if query is not None:
        job = client.query(query)
        job.result()
        found = client.get_table(job.destination)
    return f"projects/{found.project}/datasets/{found.dataset_id}/tables/{found.table_id}", [item.name for item in found.schema]


def _read_streams(streams: pa.Table, uri: str, schema: pa.Schema) -> Iterator[pa.Table]:
    yield _with_source(schema.empty_table(), uri)
    with store_errors(uri):
        for name in filter(None, streams["stream"].to_pylist()):
            for response in read_client().read_rows(name):
                batch = pa.ipc.read_record_batch(pa.py_buffer(response.arrow_record_batch.serialized_record_batch), schema)
                yield _with_source(pa.Table.from_batches([batch]), uri)


def _with_source(table: pa.Table, uri: str) -> pa.Table:
    for position, item in enumerate(table.schema):
        if is_nested(item.type):
            table = table.set_column(position, item.name, as_json(table[position]))
    if SOURCE_FILE in table.column_names:
        return table
    return table.append_column(SOURCE_FILE, pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [uri]))


@sink("bigquery")
def write_bigquery(dataset: ray.data.Dataset, uri: str, seal: Seal) -> Manifest:
    """Load both parts into staging tables, then put them into TABLE, TABLE_rejected and TABLE_manifest in one transaction.

    If anything fails before, what was live stays live; when `seal` refuses, the rejected rows stay in their staging
    table for STAGING_DAYS days.
    """
    staging = _Staging(parse(uri), new_version())
    with store_errors(uri):
        staging.start()
    parts = _LoadingSink(staging)
    try:
        dataset.write_datasink(parts)
        with store_errors(uri):
            staging.reconcile({ACCEPTED: parts.tally.accepted, REJECTED: parts.tally.rejected})
            manifest = _sealed(staging, parts.tally, seal)
            staging.publish(manifest)
    finally:
        staging.drop()
    return manifest


def _sealed(staging: "_Staging", tally: Tally, seal: Seal) -> Manifest:
    try:
        return seal(tally, staging.version, staging.address_of(REJECTED))
    except NightpriceError:
        if tally.rejected:
            staging.keep_rejected()
        raise


class _Staging:
    """The staging tables of one version of one table."""

    def __init__(self, address: Address, version: str) -> None:
        self._address = address
        self.version = version
        table = address.to_write()
        mark = version.rpartition("-")[2]
        self._live = {ACCEPTED: table, REJECTED: f"{table}_{REJECTED}", MANIFEST: f"{table}_{MANIFEST}"}
        self._staged = {part: f"{table}_{part}_{mark}" for part in (ACCEPTED, REJECTED)}

    def address_of(self, part: str) -> str:
        return self._address.of_table(self._staged[part])

    def start(self) -> None:
        """Check that the live tables are ours to replace and that tables can be made."""
        client = rest_client(self._address.project)
        there = {item.table_id for item in client.list_tables(f"{self._address.project}.{self._address.dataset}")}
        taken = [name for name in self._live.values() if name in there]
        if taken and self._live[MANIFEST] not in there:
            raise StoreError(
                f'"{self._address.uri}": the table "{taken[0]}" is there and was not written by nightprice '
                f'(there is no "{self._live[MANIFEST]}"). Write to another table, or drop that one.'
            )
        self.create(REJECTED, REJECTED_SCHEMA)

    def create(self, part: str, schema: pa.Schema) -> None:
        """Make a part's staging table, unless another task did; it expires by itself."""
        from google.cloud.bigquery import Table

        table = Table(self._address.id_of(self._staged[part]), schema=fields_of(schema))
        table.expires = datetime.now(UTC) + timedelta(days=STAGING_DAYS)
        with store_errors(self._address.uri):
            rest_client(self._address.project).create_table(table, exists_ok=True)

    def write(self, part: str, rows: pa.Table, task: str) -> tuple[str, int]:
        """Load the rows of one task. Its name is the job's: BigQuery runs a job of one name once, however often it is asked."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        data = io.BytesIO()
        pq.write_table(rows, data)
        # A list column becomes a repeated one, not a record.
        lists = bigquery.ParquetOptions()
        lists.enable_list_inference = True
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition="WRITE_APPEND",
            create_disposition="CREATE_NEVER",
            parquet_options=lists,
        )
        name = f"nightprice-{self.version}-{part}-{task}"
        with store_errors(self._address.uri):
            client = rest_client(self._address.project)
            try:
                job = client.load_table_from_file(
                    data, self._address.id_of(self._staged[part]), rewind=True, job_id=name, job_config=config
                )
                job.result()
            except Conflict:
                client.get_job(name).result()
        return task, len(rows)

    def reconcile(self, rows: dict[str, int]) -> None:
        """Raise StoreError unless the staging tables hold exactly the rows that the tasks loaded."""
        client = rest_client(self._address.project)
        there = {item.table_id for item in client.list_tables(f"{self._address.project}.{self._address.dataset}")}
        for part, expected in rows.items():
            name = self._staged[part]
            found = client.get_table(self._address.id_of(name)).num_rows if name in there else 0
            if found != expected:
                raise StoreError(
                    f'"{self.address_of(part)}" holds {found:,} rows, but {expected:,} were written. Run it again; nothing was published.'
                )

    def publish(self, manifest: Manifest) -> None:
        """Replace the rows of the live tables by the staged ones, and the manifest, in one transaction."""
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        parameter = ScalarQueryParameter("manifest", "STRING", json.dumps(manifest, ensure_ascii=False))
        client = rest_client(self._address.project)
        client.query("\n".join(self._script(client)), job_config=QueryJobConfig(query_parameters=[parameter])).result()

    def _script(self, client: Any) -> Iterator[str]:
        live = {part: f"`{self._address.id_of(name)}`" for part, name in self._live.items()}
        staged = {part: f"`{self._address.id_of(name)}`" for part, name in self._staged.items()}
        # Tables can't be made in a transaction; the new ones are empty until it ends, and do not expire as the staged ones do.
        for part, name in staged.items():
            yield f"CREATE TABLE IF NOT EXISTS {live[part]} LIKE {name} OPTIONS (expiration_timestamp = NULL);"
        yield f"CREATE TABLE IF NOT EXISTS {live[MANIFEST]} ({MANIFEST} STRING);"
        yield "BEGIN TRANSACTION;"
        for part, name in staged.items():
            fields = client.get_table(self._address.id_of(self._staged[part])).schema
            columns = ", ".join(f"`{item.name}`" for item in fields)
            yield f"DELETE FROM {live[part]} WHERE TRUE;"
            yield f"INSERT INTO {live[part]} ({columns}) SELECT {columns} FROM {name};"
        yield f"DELETE FROM {live[MANIFEST]} WHERE TRUE;"
        yield f"INSERT INTO {live[MANIFEST]} ({MANIFEST}) VALUES (@manifest);"
        yield "COMMIT TRANSACTION;"

    def keep_rejected(self) -> None:
        """Leave the rejected rows where they are."""
        del self._staged[REJECTED]

    def drop(self) -> None:
        """Drop what is staged and not kept; what can't be dropped expires, so that is no reason to fail."""
        try:
            with store_errors(self._address.uri):
                client = rest_client(self._address.project)
                for name in self._staged.values():
                    client.delete_table(self._address.id_of(name), not_found_ok=True)
        except StoreError as error:
            logger.warning("The staging tables %s stay for %d days: %s", ", ".join(self._staged.values()), STAGING_DAYS, error)


class _LoadingSink(PartsSink):
    """Both parts into their staging tables; the table of the accepted rows is made for the columns of the first block."""

    def __init__(self, staging: _Staging) -> None:
        super().__init__(staging.write)
        self._staging = staging

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> Tally:
        return super().write(self._with_table(blocks), ctx)

    def _with_table(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for number, block in enumerate(blocks):
            if number == 0:
                schema = BlockAccessor.for_block(block).to_arrow().schema
                names = [name for name in schema.names if name not in (REJECTED, WARNINGS)]
                self._staging.create(ACCEPTED, pa.schema([schema.field(name) for name in names]))
            yield block
