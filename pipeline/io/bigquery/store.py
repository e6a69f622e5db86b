"""Tables of BigQuery, through Ray's connector: the streams of a query's result are read, staging tables are appended
to.

    bigquery://project/dataset.table        bigquery://project?query=SELECT+…

docs/decisions/bigquery.md tells what of the connector's ways is made safe here, and how.
"""

from collections.abc import Callable, Iterable
from functools import partial

import ray.data
from ray.data import DataContext
from ray.data._internal.datasource.bigquery_datasource import BigQueryDatasource
from ray.data.block import Block
from ray.data.datasource import ReadTask

from pipeline.cluster.arrow_tasks import RETRIES, map_tables, retried
from pipeline.io.bigquery.client import Address, client_of, parse, store_errors
from pipeline.io.bigquery.staging import BigQueryStaging
from pipeline.io.files import new_version
from pipeline.io.staging import write_staged
from pipeline.io.stores import Columns, Manifest, Seal, sink, source
from pipeline.io.table_rows import missing_table, with_source

# BigQuery makes fewer for a small result.
STREAMS = 200


@source("bigquery")
def read_bigquery(uri: str, columns: Columns) -> ray.data.Dataset:
    """The chosen columns of a table, view or query, one task a stream; all streams see the rows as of one moment.

    Lists arrive as JSON text. Raises StoreError when the table is not there or may not be read.
    """
    address = parse(uri)
    with store_errors(uri):
        chosen = columns(_columns(address), uri)
    query = f"SELECT {', '.join(f'`{name}`' for name in chosen)} FROM {address.relation}"
    result = _Result(address, query)
    # Without their number Ray would cut what few streams give into 200 blocks.
    with retried():
        rows: ray.data.Dataset = ray.data.read_datasource(
            result, override_num_blocks=max(len(result.streams), 1), ray_remote_args={"max_retries": RETRIES}
        )
    return map_tables(rows, partial(with_source, where=uri))


def _columns(address: Address) -> list[str]:
    """The columns of the table or query: a dry run costs nothing."""
    from google.cloud.bigquery import QueryJobConfig

    client = client_of(address.project)
    if address.query is None:
        there = [item.table_id for item in client.list_tables(f"{address.project}.{address.dataset}")]
        if address.table not in there:
            raise missing_table(address.shown, address.table, there)
    job = client.query(f"SELECT * FROM {address.relation}", job_config=QueryJobConfig(dry_run=True))
    return [item.name for item in job.schema or []]


class _Result(BigQueryDatasource):
    """The result of one query. Ray asks a source for its read tasks three times, and its own would run the query
    each time.
    """

    def __init__(self, address: Address, query: str) -> None:
        super().__init__(project_id=address.project, query=query)
        self._uri = address.shown
        with store_errors(address.shown):
            self.streams: list[ReadTask] = super().get_read_tasks(STREAMS)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        return [
            ReadTask(partial(_read, stream.read_fn, self._uri), stream.metadata, per_task_row_limit=per_task_row_limit)
            for stream in self.streams
        ]


def _read(stream: Callable[[], Iterable[Block]], uri: str) -> list[Block]:
    with store_errors(uri):
        return list(stream())


@sink("bigquery")
def write_bigquery(dataset: ray.data.Dataset, uri: str, seal: Seal) -> Manifest:
    """Write both parts to staging tables, then put them into TABLE, TABLE_rejected and TABLE_manifest in one
    transaction.
    """
    return write_staged(dataset, BigQueryStaging(parse(uri), new_version()), seal)
