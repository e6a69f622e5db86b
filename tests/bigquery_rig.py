"""BigQuery's border for the tests: its REST API over HTTP and its storage API over gRPC, with tables in SQLite.

Google's own clients, their protocol buffers and Arrow streams are real; what answers is this file, which knows as much of
BigQuery as the pipeline asks for. It cannot tell whether the real service would refuse something.
"""

import json
import os
import re
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PROJECT = "test-project"
TYPES = {"INTEGER": pa.int64(), "FLOAT": pa.float64(), "BOOLEAN": pa.bool_(), "STRING": pa.string()}
Json = dict[str, Any]
_SOCKETS = pytest.StashKey[tuple[socket.socket, socket.socket]]()


def pytest_configure(config: pytest.Config) -> None:
    listener, storage = socket.socket(), socket.socket()
    # Holds the port until gRPC's server, which reuses ports, binds it too.
    storage.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for held in (listener, storage):
        held.bind(("127.0.0.1", 0))
    config.stash[_SOCKETS] = listener, storage
    os.environ["BIGQUERY_EMULATOR_HOST"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
    os.environ["BIGQUERY_STORAGE_EMULATOR_HOST"] = f"127.0.0.1:{storage.getsockname()[1]}"


def pytest_unconfigure(config: pytest.Config) -> None:
    for held in config.stash[_SOCKETS]:
        held.close()


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}


@dataclass
class Warehouse:
    """Datasets, tables and jobs; a table's name is `project.dataset.table`, as in BigQuery's SQL."""

    datasets: set[str] = field(default_factory=set)
    schemas: dict[str, list[Json]] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    uploads: dict[str, tuple[Json, bytearray]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Datasets that nobody has rights to."""

    def __post_init__(self) -> None:
        self.sql = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.lock = threading.RLock()

    def create(self, name: str, fields: list[Json]) -> None:
        if name in self.schemas:
            raise Refused(409, "duplicate", f"Already Exists: Table {name}")
        self.schemas[name] = fields
        columns = ", ".join(f"`{item['name']}`" for item in fields)
        self.sql.execute(f"CREATE TABLE `{name}` ({columns})")

    def drop(self, name: str) -> None:
        self.resource(name)
        del self.schemas[name]
        self.sql.execute(f"DROP TABLE `{name}`")

    def check(self, dataset: str) -> None:
        if dataset in self.closed:
            raise Refused(403, "accessDenied", f"Access Denied: Dataset {PROJECT}:{dataset}: Permission denied")
        if dataset not in self.datasets:
            raise Refused(404, "notFound", f"Not found: Dataset {PROJECT}:{dataset}")

    def resource(self, name: str) -> Json:
        project, dataset, table = name.split(".")
        if name not in self.schemas:
            raise Refused(404, "notFound", f"Not found: Table {project}:{dataset}.{table}")
        ((rows,),) = self.sql.execute(f"SELECT count(*) FROM `{name}`")
        reference = {"projectId": project, "datasetId": dataset, "tableId": table}
        return {"tableReference": reference, "type": "TABLE", "numRows": str(rows), "schema": {"fields": self.schemas[name]}}

    def arrow(self, name: str, columns: list[str]) -> pa.Table:
        by_name = {item["name"]: item for item in self.schemas[name]}
        kinds = {column: TYPES[by_name[column]["type"]] for column in columns}
        rows = self.sql.execute(f"SELECT {', '.join(f'`{column}`' for column in columns)} FROM `{name}`").fetchall()
        arrays: dict[str, pa.Array] = {}
        for position, column in enumerate(columns):
            values = [row[position] for row in rows]
            if by_name[column].get("mode") == "REPEATED":
                arrays[column] = pa.array([json.loads(value or "[]") for value in values], pa.list_(kinds[column]))
            else:
                arrays[column] = pa.array([bool(v) if kinds[column] == pa.bool_() and v is not None else v for v in values], kinds[column])
        return pa.table(arrays)

    def load(self, config: Json, data: bytes) -> None:
        target = config["destinationTable"]
        name = f"{target['projectId']}.{target['datasetId']}.{target['tableId']}"
        self.resource(name)
        assert config["writeDisposition"] == "WRITE_APPEND"
        assert config["parquetOptions"]["enableListInference"]
        rows = pq.read_table(BytesIO(data)).to_pylist()
        names = [item["name"] for item in self.schemas[name]]
        values = [[json.dumps(row[key]) if isinstance(row[key], list) else row[key] for key in names] for row in rows]
        self.sql.executemany(f"INSERT INTO `{name}` VALUES ({', '.join('?' * len(names))})", values)

    def query(self, text: str, parameters: Json) -> str | None:
        """Run a script; a single SELECT leaves its result in a table, whose name is returned."""
        if re.match(r"\s*SELECT\b", text, re.IGNORECASE):
            name = f"{PROJECT}._anonymous.result_{uuid.uuid4().hex}"
            cursor = self.sql.execute(text)
            self.create(name, [{"name": column[0], "type": "STRING", "mode": "NULLABLE"} for column in cursor.description])
            self.sql.executemany(f"INSERT INTO `{name}` VALUES ({', '.join('?' * len(cursor.description))})", cursor.fetchall())
            return name
        for statement in filter(None, (part.strip() for part in text.split(";\n"))):
            self._statement(statement.rstrip(";"), parameters)
        return None

    def _statement(self, text: str, parameters: Json) -> None:
        like = re.fullmatch(r"CREATE TABLE IF NOT EXISTS `([^`]+)` LIKE `([^`]+)` OPTIONS \(expiration_timestamp = NULL\)", text)
        plain = re.fullmatch(r"CREATE TABLE IF NOT EXISTS `([^`]+)` \((\w+) STRING\)", text)
        if like and like[1] not in self.schemas:
            self.create(like[1], self.schemas[like[2]])
        elif plain and plain[1] not in self.schemas:
            self.create(plain[1], [{"name": plain[2], "type": "STRING", "mode": "NULLABLE"}])
        elif not like and not plain:
            self.sql.execute(text, parameters)

    def run(self, job: Json, data: bytes = b"") -> Json:
        identity = job.setdefault("jobReference", {}).setdefault("jobId", uuid.uuid4().hex)
        if identity in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {identity}")
        job["jobReference"] |= {"projectId": PROJECT, "location": "US"}
        job |= {"status": {"state": "DONE"}, "statistics": {}, "id": identity}
        self.jobs[identity] = job
        try:
            self._run(job["configuration"], data)
        except sqlite3.Error as error:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
            job["status"] |= {"errorResult": {"reason": "invalidQuery", "message": str(error)}}
        return job

    def _run(self, configuration: Json, data: bytes) -> None:
        if "load" in configuration:
            self.load(configuration["load"], data)
            return
        config = configuration["query"]
        parameters = {item["name"]: item["parameterValue"]["value"] for item in config.get("queryParameters", [])}
        if result := self.query(config["query"], parameters):
            project, dataset, table = result.split(".")
            config["destinationTable"] = {"projectId": project, "datasetId": dataset, "tableId": table}

    # The REST API.

    def answer(self, method: str, path: str, arguments: dict[str, list[str]], body: bytes) -> tuple[Json, dict[str, str]]:
        """One request's answer and headers."""
        with self.lock:
            if path.startswith("/upload/"):
                return self._upload(method, arguments, body)
            sent = json.loads(body) if body else {}
            parts = path.removeprefix("/bigquery/v2/projects/").split("/")
            match method, parts[1:]:
                case "GET", ["datasets", dataset, "tables"]:
                    self.check(dataset)
                    return {"tables": [self.resource(name) for name in self.schemas if name.split(".")[1] == dataset]}, {}
                case "POST", ["datasets", dataset, "tables"]:
                    self.check(dataset)
                    name = f"{PROJECT}.{dataset}.{sent['tableReference']['tableId']}"
                    assert int(sent["expirationTime"]) > 0
                    self.create(name, sent["schema"]["fields"])
                    return self.resource(name), {}
                case "GET", ["datasets", dataset, "tables", table]:
                    return self.resource(f"{PROJECT}.{dataset}.{table}"), {}
                case "DELETE", ["datasets", dataset, "tables", table]:
                    self.drop(f"{PROJECT}.{dataset}.{table}")
                    return {}, {}
                case "POST", ["jobs"]:
                    return self.run(sent), {}
                case "GET", ["jobs", identity]:
                    return self.jobs[identity], {}
                case "GET", ["queries", identity]:
                    return self._results(self.jobs[identity]), {}
        raise Refused(501, "notImplemented", f"{method} {path}")

    def _results(self, job: Json) -> Json:
        if error := job["status"].get("errorResult"):
            raise Refused(400, error["reason"], error["message"])
        return {"jobComplete": True, "jobReference": job["jobReference"], "totalRows": "0", "schema": {"fields": []}}

    def _upload(self, method: str, arguments: dict[str, list[str]], body: bytes) -> tuple[Json, dict[str, str]]:
        if method == "POST":
            sent = json.loads(body)
            identity = uuid.uuid4().hex
            self.uploads[identity] = sent, bytearray()
            return {}, {
                "Location": f"{os.environ['BIGQUERY_EMULATOR_HOST']}/upload/bigquery/v2/projects/{PROJECT}/jobs?upload_id={identity}"
            }
        job, received = self.uploads[arguments["upload_id"][0]]
        received += body
        return self.run(job, bytes(received)), {}


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    warehouse: Warehouse

    def _answer(self) -> None:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        try:
            content, headers = self.warehouse.answer(self.command, split.path, parse_qs(split.query), body)
            status = 200
        except Refused as refused:
            status, content, headers = refused.status, refused.body, {}
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Storage:
    """The storage API: a session has two streams, each with its half of the rows as they were when it began."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._streams: dict[str, pa.Table] = {}

    def create_read_session(self, request: Any, context: Any) -> Any:
        from google.cloud.bigquery_storage_v1 import types as messages

        _, project, _, dataset, _, table = request.read_session.table.split("/")
        with self._warehouse.lock:
            rows = self._warehouse.arrow(f"{project}.{dataset}.{table}", list(request.read_session.read_options.selected_fields))
        half = -(-len(rows) // 2)
        halves = [part for part in (rows.slice(0, half), rows.slice(half)) if len(part)]
        names = [f"projects/{project}/locations/us/sessions/{uuid.uuid4().hex}/streams/{number}" for number in range(len(halves))]
        self._streams |= dict(zip(names, halves, strict=True))
        return messages.ReadSession(
            name="session",
            arrow_schema=messages.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes()),
            streams=[messages.ReadStream(name=name) for name in names],
        )

    def read_rows(self, request: Any, context: Any) -> Iterator[Any]:
        from google.cloud.bigquery_storage_v1 import types as messages

        for batch in self._streams[request.read_stream].slice(request.offset).to_batches(max_chunksize=2):
            data = messages.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            yield messages.ReadRowsResponse(arrow_record_batch=data, row_count=len(batch))


def _grpc_server(warehouse: Warehouse, port: int) -> Any:
    import grpc
    from google.cloud.bigquery_storage_v1 import types as messages

    storage = _Storage(warehouse)
    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            storage.create_read_session, messages.CreateReadSessionRequest.deserialize, messages.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            storage.read_rows, messages.ReadRowsRequest.deserialize, messages.ReadRowsResponse.serialize
        ),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.cloud.bigquery.storage.v1.BigQueryRead", handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    return server


@pytest.fixture(scope="session")
def bigquery_server(pytestconfig: pytest.Config) -> Iterator[Warehouse]:
    """The two servers, for the session."""
    listener, held = pytestconfig.stash[_SOCKETS]
    warehouse = Warehouse()
    listener.listen(128)
    rest = ThreadingHTTPServer(listener.getsockname(), type("Rest", (_Rest,), {"warehouse": warehouse}), bind_and_activate=False)
    rest.socket.close()
    rest.socket = listener
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    storage = _grpc_server(warehouse, held.getsockname()[1])
    storage.start()
    yield warehouse
    storage.stop(None)
    rest.shutdown()
    thread.join()


@pytest.fixture
def bigquery(bigquery_server: Warehouse) -> tuple[Warehouse, str]:
    """The warehouse, and the name of a new, empty dataset."""
    name = f"dataset_{uuid.uuid4().hex[:12]}"
    bigquery_server.datasets.add(name)
    return bigquery_server, name
