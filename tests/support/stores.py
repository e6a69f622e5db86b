"""The stores of the contract tests: each can be given raw rows by its own means, and says how its dataset is read."""

import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from pyarrow import fs

from nightprice.address import parse_address
from pipeline.datasets import open_dataset
from pipeline.io import Columns, exactly, read
from tests.support.bigquery_server import PROJECT, Warehouse
from tests.support.iceberg_catalog import CATALOG
from tests.support.postgres_server import Server
from transforms.listings import CONTRACT


def rows_at(uri: str, columns: Columns) -> ray.data.Dataset:
    """The rows at an address, read by its store."""
    return read(parse_address(uri), columns).rows


@dataclass(frozen=True)
class Store:
    """How a test speaks to one kind of store."""

    put: Callable[[pa.Table], str]
    """Stores raw rows without our code; returns their address."""
    sink: str | None = None
    """Where datasets are written, if the store can be written to."""
    secret: str | None = None
    """What no message and no row may hold."""
    wrong: str | None = None
    """An address that the store does not know."""

    def accepted(self, columns: list[str]) -> list[dict[str, Any]]:
        assert self.sink
        return sorted(open_dataset(self.sink, CONTRACT).rows(columns).take_all(), key=lambda row: int(row["id"]))

    def rejected(self, columns: list[str]) -> list[dict[str, Any]]:
        assert self.sink
        rows = (
            read(open_dataset(self.sink, CONTRACT).rejected, exactly(*columns)).rows.select_columns(columns).take_all()
        )
        # Stores without lists hold them as JSON text.
        return [
            row | {"reasons": json.loads(row["reasons"]) if isinstance(row["reasons"], str) else list(row["reasons"])}
            for row in rows
        ]


def parquet(folder: Path) -> Store:
    def put(rows: pa.Table) -> str:
        (folder / "raw").mkdir()
        pq.write_table(rows, folder / "raw" / "listings.parquet")
        return str(folder / "raw")

    return Store(put, str(folder / "dataset"), wrong=str(folder / "nothing"))


def _csv_text(rows: pa.Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([rows.column_names, *([row[name] for name in rows.column_names] for row in rows.to_pylist())])
    return text.getvalue().encode()


def csv_file(folder: Path) -> Store:
    def put(rows: pa.Table) -> str:
        (folder / "listings.csv").write_bytes(_csv_text(rows))
        return str(folder / "listings.csv")

    return Store(put, wrong=str(folder / "nothing.csv"))


def csv_gz(folder: Path) -> Store:
    def put(rows: pa.Table) -> str:
        (folder / "listings.csv.gz").write_bytes(gzip.compress(_csv_text(rows)))
        return str(folder / "*.csv.gz")

    return Store(put, wrong=str(folder / "*.csv.gz"))


def json_lines(folder: Path) -> Store:
    def put(rows: pa.Table) -> str:
        (folder / "listings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
        return str(folder / "listings.jsonl")

    return Store(put, wrong=str(folder / "nothing.jsonl"))


def s3(bucket: str) -> Store:
    def put(rows: pa.Table) -> str:
        filesystem, path = fs.FileSystem.from_uri(f"{bucket}/raw/listings.parquet")
        pq.write_table(rows, path, filesystem=filesystem)
        return f"{bucket}/raw"

    return Store(put, f"{bucket}/dataset", wrong="s3://there-is-no-such-bucket/raw")


def _text_columns(rows: pa.Table) -> str:
    return ", ".join(f'"{name}" text' for name in rows.column_names)


def sqlite(folder: Path) -> Store:
    def put(rows: pa.Table) -> str:
        with sqlite3.connect(folder / "listings.db") as connection:
            connection.execute(f"CREATE TABLE raw ({_text_columns(rows)})")
            marks = ", ".join("?" * rows.num_columns)
            connection.executemany(
                f"INSERT INTO raw VALUES ({marks})", [tuple(row.values()) for row in rows.to_pylist()]
            )
        connection.close()
        return f"sqlite:///{folder}/listings.db?table=raw"

    return Store(put, f"sqlite:///{folder}/listings.db?table=dataset", wrong=f"sqlite:///{folder}/nothing.db?table=raw")


def postgresql(server: Server, database: str) -> Store:
    def put(rows: pa.Table) -> str:
        server.run(database, f"CREATE TABLE raw ({_text_columns(rows)})")
        for row in rows.to_pylist():
            values = ", ".join(
                "NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in row.values()
            )
            server.run(database, f"INSERT INTO raw VALUES ({values})")
        return f"{server.uri(database)}?table=raw"

    wrong = f"{server.uri(database, password=quote('no-such-password'))}?table=raw"
    return Store(put, f"{server.uri(database)}?table=dataset", secret="s3cr3t", wrong=wrong)


def bigquery(warehouse: Warehouse, dataset: str) -> Store:
    def put(rows: pa.Table) -> str:
        name = f"{PROJECT}.{dataset}.raw"
        warehouse.create(name, [{"name": column, "type": "STRING", "mode": "NULLABLE"} for column in rows.column_names])
        for row in rows.to_pylist():
            warehouse.sql.execute(f"INSERT INTO `{name}` VALUES ({', '.join('?' * len(row))})", list(row.values()))
        return f"bigquery://{PROJECT}/{dataset}.raw"

    return Store(put, f"bigquery://{PROJECT}/{dataset}.listings", wrong=f"bigquery://{PROJECT}/{dataset}.nothing")


def delta(root: str) -> Store:
    """Delta Lake tables below an address such as delta:///folder or delta+s3://bucket."""

    def put(rows: pa.Table) -> str:
        import deltalake

        deltalake.write_deltalake(f"{root}/raw".removeprefix("delta://").removeprefix("delta+"), rows)
        return f"{root}/raw"

    return Store(put, f"{root}/dataset", wrong=f"{root}/nothing")


def iceberg(namespace: str) -> Store:
    """Iceberg tables of a namespace."""

    def put(rows: pa.Table) -> str:
        from pyiceberg.catalog import load_catalog

        load_catalog(CATALOG).create_table(f"{namespace}.raw", rows.schema).append(rows)
        return f"iceberg://{CATALOG}/{namespace}.raw"

    root = f"iceberg://{CATALOG}/{namespace}"
    return Store(put, f"{root}.dataset", wrong=f"{root}.nothing")
