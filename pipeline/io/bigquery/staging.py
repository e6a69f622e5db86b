"""Staging tables of BigQuery: every attempt of a task appends under a name of its own, and only those that
succeeded count.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from ray.data._internal.datasource.bigquery_datasink import BigQueryDatasink
from ray.data._internal.execution.interfaces import TaskContext

from pipeline.io.bigquery.client import BigQueryAddress, client_of, fields_of, store_errors
from pipeline.io.staging import MANIFEST, Staging
from pipeline.io.table_rows import lists_as_json
from pipeline.manifests import DatasetManifest

# What a dead run leaves behind, and a refused version's rejected rows, expire.
STAGING_DAYS = 7
ATTEMPT = "_attempt"


class BigQueryStaging(Staging):
    """Ray's sink appends, so a task that runs again leaves its rows twice: under the name of each attempt."""

    def __init__(self, address: BigQueryAddress, version: str) -> None:
        super().__init__(address, version)
        self._at = address

    def tables(self) -> set[str]:
        with store_errors(self._at.display):
            return {
                item.table_id
                for item in client_of(self._at.project).list_tables(f"{self._at.project}.{self._at.dataset}")
            }

    def create(self, kind: str, schema: pa.Schema) -> None:
        from google.cloud.bigquery import Table

        stored = lists_as_json(schema.empty_table()).schema.append(pa.field(ATTEMPT, pa.string()))
        table = Table(self._at.id_of(self.staged[kind]), schema=fields_of(stored))
        table.expires = datetime.now(UTC) + timedelta(days=STAGING_DAYS)
        with store_errors(self._at.display):
            client_of(self._at.project).create_table(table, exists_ok=True)

    def write(self, kind: str, rows: pa.Table, task: str) -> str:
        name = f"{task}-{uuid.uuid4().hex}"
        block = lists_as_json(rows).append_column(ATTEMPT, pa.repeat(name, len(rows)))
        with store_errors(self._at.display):
            BigQueryDatasink(self._at.project, f"{self._at.dataset}.{self.staged[kind]}").write(
                [block], TaskContext(0, task)
            )
        return name

    def count(self, kind: str, written: Sequence[str]) -> int:
        ((rows,),) = self._run(
            f"SELECT COUNT(*) FROM {self._sql(self.staged[kind])} WHERE {ATTEMPT} IN UNNEST(@written)", written
        )
        return int(rows)

    def publish(self, manifest: DatasetManifest, written: Sequence[str]) -> None:
        from google.cloud.bigquery import ScalarQueryParameter

        text = json.dumps(manifest, ensure_ascii=False)
        self._run("\n".join(self._swap()), written, ScalarQueryParameter(MANIFEST, "STRING", text))

    def _swap(self) -> Iterator[str]:
        manifest = self._sql(self.live[MANIFEST])
        tables = [
            (self._sql(self.live[kind]), self._sql(self.staged[kind]), self._columns(kind)) for kind in self.staged
        ]
        # Tables can't be made in a transaction; the new ones are empty until it ends.
        for live, staged, columns in tables:
            yield f"CREATE TABLE IF NOT EXISTS {live} AS SELECT {columns} FROM {staged} LIMIT 0;"
        yield f"CREATE TABLE IF NOT EXISTS {manifest} ({MANIFEST} STRING);"
        yield "BEGIN TRANSACTION;"
        for live, staged, columns in tables:
            yield f"DELETE FROM {live} WHERE TRUE;"
            yield f"INSERT INTO {live} ({columns}) SELECT {columns} FROM {staged} WHERE {ATTEMPT} IN UNNEST(@written);"
        yield f"DELETE FROM {manifest} WHERE TRUE;"
        yield f"INSERT INTO {manifest} ({MANIFEST}) VALUES (@{MANIFEST});"
        yield "COMMIT TRANSACTION;"

    def _columns(self, kind: str) -> str:
        """The columns of a staging table, for SQL."""
        with store_errors(self._at.display):
            fields = client_of(self._at.project).get_table(self._at.id_of(self.staged[kind])).schema
        return ", ".join(f"`{item.name}`" for item in fields if item.name != ATTEMPT)

    def drop_bookkeeping_column(self, kind: str, written: Sequence[str]) -> None:
        table = self._sql(self.staged[kind])
        self._run(
            f"DELETE FROM {table} WHERE {ATTEMPT} NOT IN UNNEST(@written);\nALTER TABLE {table} DROP COLUMN {ATTEMPT};",
            written,
        )

    def drop(self, tables: Iterable[str]) -> None:
        with store_errors(self._at.display):
            for table in tables:
                client_of(self._at.project).delete_table(self._at.id_of(table), not_found_ok=True)

    def _sql(self, table: str) -> str:
        return f"`{self._at.id_of(table)}`"

    def _run(self, script: str, written: Sequence[str], *others: Any) -> list[Any]:
        from google.cloud.bigquery import ArrayQueryParameter, QueryJobConfig

        parameters = [ArrayQueryParameter("written", "STRING", written), *others]
        with store_errors(self._at.display):
            job = client_of(self._at.project).query(script, job_config=QueryJobConfig(query_parameters=parameters))
            return [row.values() for row in job.result()]
