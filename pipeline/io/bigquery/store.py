"""Tables of BigQuery, through Ray's connector: the streams of a query's result are read, staging tables are appended
to.

    bigquery://project/dataset.table        bigquery://project?query=SELECT+…

docs/decisions/bigquery.md says which behaviours of the connector are made safe here, and how.
"""

from collections.abc import Callable, Iterable
from functools import partial

import ray.data
from ray.data import DataContext
from ray.data._internal.datasource.bigquery_datasource import BigQueryDatasource
from ray.data.block import Block
from ray.data.datasource import ReadTask

from nightprice.address import Address
from pipeline.cluster.arrow_tasks import RETRIES, map_tables, retried
from pipeline.io.bigquery.client import BigQueryAddress, bigquery_address, client_of, store_errors
from pipeline.io.bigquery.staging import BigQueryStaging
from pipeline.io.staging import TableStore
from pipeline.io.stores import Columns, Source
from pipeline.io.table_rows import as_raw_rows, missing_table
from pipeline.versions import new_version

# BigQuery makes fewer for a small result.
STREAMS = 200


class BigQueryStore(TableStore):
    """Tables, views and queries of BigQuery."""

    def table_address(self, address: Address) -> BigQueryAddress:
        return bigquery_address(address)

    def staging(self, address: Address, key: str) -> BigQueryStaging:
        return BigQueryStaging(bigquery_address(address), new_version())

    def read(self, address: Address, columns: Columns) -> Source:
        """The chosen columns of a table, view or query, one task a stream; all streams see the rows as of one moment.

        Lists arrive as JSON text. Raises StoreError when the table does not exist or may not be read.
        """
        target = bigquery_address(address)
        with store_errors(address.display):
            chosen = columns(_columns(target), address.display)
        query = f"SELECT {', '.join(f'`{name}`' for name in chosen)} FROM {target.relation}"
        result = _Result(target, query)
        # Without their number Ray would cut what few streams give into 200 blocks.
        tasks = max(len(result.streams), 1)
        with retried():
            rows: ray.data.Dataset = ray.data.read_datasource(
                result, override_num_blocks=tasks, ray_remote_args={"max_retries": RETRIES}
            )
        rows = map_tables(rows, partial(as_raw_rows, where=address.display))
        return Source(rows, [{"path": address.display}], tasks=tasks)


def _columns(address: BigQueryAddress) -> list[str]:
    """The columns of the table or query: a dry run costs nothing."""
    from google.cloud.bigquery import QueryJobConfig

    client = client_of(address.project)
    if address.table is not None:
        existing = [item.table_id for item in client.list_tables(f"{address.project}.{address.dataset}")]
        if address.table not in existing:
            raise missing_table(address.display, address.table, existing)
    job = client.query(f"SELECT * FROM {address.relation}", job_config=QueryJobConfig(dry_run=True))
    return [item.name for item in job.schema or []]


class _Result(BigQueryDatasource):
    """The result of one query. Ray asks a source for its read tasks three times, and its own would run the query
    each time.
    """

    def __init__(self, address: BigQueryAddress, query: str) -> None:
        super().__init__(project_id=address.project, query=query)
        self._display = address.display
        with store_errors(address.display):
            self.streams: list[ReadTask] = super().get_read_tasks(STREAMS)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_read, stream.read_fn, self._display), stream.metadata, per_task_row_limit=per_task_row_limit
            )
            for stream in self.streams
        ]


def _read(stream: Callable[[], Iterable[Block]], display: str) -> list[Block]:
    with store_errors(display):
        return list(stream())
