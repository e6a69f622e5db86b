"""BigQuery's border for the tests: its REST API over HTTP and its storage API over gRPC, with tables in SQLite.

Ray's connector, Google's own clients, their log-in, protocol buffers and Arrow streams are real; what answers is this
file,
which knows as much of BigQuery as the pipeline asks for. It cannot tell whether the real service would refuse
something.
"""

import json
import os
import re
import shutil
import socket
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PROJECT = "test-project"
TOKEN = "a-token"
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
    # A log-in whose tokens come from here: Ray's workers take it from their environment, and that from now.
    folder = Path(tempfile.mkdtemp(prefix="nightprice-bigquery-"))
    (folder / "proof").write_text("of who this is")
    login = {
        "type": "external_account",
        "audience": "tests",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{os.environ['BIGQUERY_EMULATOR_HOST']}/token",
        "credential_source": {"file": str(folder / "proof")},
    }
    (folder / "login.json").write_text(json.dumps(login))
    os.environ |= {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "login.json"), "GOOGLE_CLOUD_PROJECT": PROJECT}


def pytest_unconfigure(config: pytest.Config) -> None:
    for held in config.stash[_SOCKETS]:
        held.close()
    shutil.rmtree(Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).parent)


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = (
            status,
            {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}},
        )


@dataclass
class Warehouse:
    """Datasets, tables and jobs; a table's name is `project.dataset.table`, as in BigQuery's SQL."""

    datasets: set[str] = field(default_factory=set)
    schemas: dict[str, list[Json]] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    uploads: dict[str, tuple[Json, bytearray]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    """The queries whose results were stored."""
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
        return {
            "tableReference": reference,
            "type": "TABLE",
            "numRows": str(rows),
            "schema": {"fields": self.schemas[name]},
        }

    def arrow(self, name: str) -> pa.Table:
        rows = self.sql.execute(f"SELECT * FROM `{name}`").fetchall()
        arrays: dict[str, pa.Array] = {}
        for position, item in enumerate(self.schemas[name]):
            kind, values = TYPES[item["type"]], [row[position] for row in rows]
            if item.get("mode") == "REPEATED":
                arrays[item["name"]] = pa.array([json.loads(value or "[]") for value in values], pa.list_(kind))
            else:
                arrays[item["name"]] = pa.array(
                    [bool(v) if kind == pa.bool_() and v is not None else v for v in values], kind
                )
        return pa.table(arrays)

    def load(self, config: Json, data: bytes) -> None:
        target = config["destinationTable"]
        name = f"{target['projectId']}.{target['datasetId']}.{target['tableId']}"
        self.resource(name)
        assert config["writeDisposition"] == "WRITE_APPEND"
        rows = pq.read_table(BytesIO(data))
        assert not any(pa.types.is_nested(item.type) for item in rows.schema), "BigQuery would take a list for a record"
        names = [item["name"] for item in self.schemas[name]]
        values = [[row[key] for key in names] for row in rows.to_pylist()]
        self.sql.executemany(f"INSERT INTO `{name}` VALUES ({', '.join('?' * len(names))})", values)

    def query(self, text: str, parameters: Json) -> str | None:
        """Run a script; a single SELECT leaves its result in a table, whose name is returned."""
        # An array is a JSON text here.
        text = re.sub(r"UNNEST\((@\w+)\)", r"(SELECT value FROM json_each(\1))", text)
        if re.match(r"\s*SELECT\b", text):
            name = f"{PROJECT}._anonymous.result_{uuid.uuid4().hex}"
            self.create(name, self.fields(text, parameters))
            self.sql.execute(f"INSERT INTO `{name}` {text}", parameters)
            return name
        for statement in filter(None, (part.strip().rstrip(";") for part in text.split(";\n"))):
            made = re.fullmatch(r"CREATE TABLE IF NOT EXISTS `([^`]+)` (?:AS (SELECT .+)|\((\w+) STRING\))", statement)
            if not made:
                self.sql.execute(statement, parameters)
            elif made[1] not in self.schemas:
                self.create(made[1], self.fields(made[2], {}) if made[2] else [{"name": made[3], "type": "STRING"}])
        return None

    def fields(self, select: str, parameters: Json) -> list[Json]:
        """The columns of a query: those of the tables it names, others as text."""
        known = {
            item["name"]: item
            for table in re.findall(r"`([^`]+\.[^`]+\.[^`]+)`", select)
            for item in self.schemas.get(table, [])
        }
        names = [name for name, *_ in self.sql.execute(f"SELECT * FROM ({select}) LIMIT 0", parameters).description]
        return [known.get(name, {"name": name, "type": "STRING", "mode": "NULLABLE"}) for name in names]

    def run(self, job: Json, data: bytes = b"") -> Json:
        identity = job.setdefault("jobReference", {}).setdefault("jobId", uuid.uuid4().hex)
        if identity in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {identity}")
        job["jobReference"] |= {"projectId": PROJECT, "location": "US"}
        job |= {"status": {"state": "DONE"}, "statistics": {}, "id": identity}
        self.jobs[identity] = job
        try:
            self._run(job, data)
        except sqlite3.Error as error:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
            job["status"] |= {"errorResult": {"reason": "invalidQuery", "message": str(error)}}
        return job

    def _run(self, job: Json, data: bytes) -> None:
        configuration = job["configuration"]
        if "load" in configuration:
            self.load(configuration["load"], data)
            return
        config = configuration["query"]
        parameters = {item["name"]: _parameter(item["parameterValue"]) for item in config.get("queryParameters", [])}
        if configuration.get("dryRun"):
            job["statistics"] = {"query": {"schema": {"fields": self.fields(config["query"], parameters)}}}
        elif result := self.query(config["query"], parameters):
            self.queries.append(config["query"])
            project, dataset, table = result.split(".")
            config["destinationTable"] = {"projectId": project, "datasetId": dataset, "tableId": table}

    # The REST API.

    def answer(
        self, method: str, path: str, arguments: dict[str, list[str]], body: bytes
    ) -> tuple[Json, dict[str, str]]:
        """One request's answer and headers."""
        with self.lock:
            if path.startswith("/upload/"):
                return self._upload(method, arguments, body)
            sent = json.loads(body) if body else {}
            parts = path.removeprefix("/bigquery/v2/projects/").split("/")
            match method, parts[1:]:
                case "GET", ["datasets", dataset, "tables"]:
                    self.check(dataset)
                    return {
                        "tables": [self.resource(name) for name in self.schemas if name.split(".")[1] == dataset]
                    }, {}
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
                    return self._results(self.jobs[identity], int(arguments.get("maxResults", ["1000"])[0])), {}
        raise Refused(501, "notImplemented", f"{method} {path}")

    def _results(self, job: Json, most: int) -> Json:
        if error := job["status"].get("errorResult"):
            raise Refused(400, error["reason"], error["message"])
        answer = {"jobComplete": True, "jobReference": job["jobReference"]}
        target = job["configuration"]["query"].get("destinationTable")
        if not target:
            return answer
        name = f"{target['projectId']}.{target['datasetId']}.{target['tableId']}"
        answer |= {"totalRows": self.resource(name)["numRows"], "schema": {"fields": self.schemas[name]}}
        rows = [
            {"f": [{"v": value} for value in row]} for row in self.sql.execute(f"SELECT * FROM `{name}` LIMIT {most}")
        ]
        return answer | ({"rows": rows} if rows else {})

    def _upload(self, method: str, arguments: dict[str, list[str]], body: bytes) -> tuple[Json, dict[str, str]]:
        if method == "POST":
            sent = json.loads(body)
            identity = uuid.uuid4().hex
            self.uploads[identity] = sent, bytearray()
            jobs = f"{os.environ['BIGQUERY_EMULATOR_HOST']}/upload/bigquery/v2/projects/{PROJECT}/jobs"
            return {}, {"Location": f"{jobs}?upload_id={identity}"}
        job, received = self.uploads[arguments["upload_id"][0]]
        received += body
        return self.run(job, bytes(received)), {}


def _parameter(value: Json) -> str:
    return json.dumps([item["value"] for item in value["arrayValues"]]) if "arrayValues" in value else value["value"]


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    warehouse: Warehouse

    def _answer(self) -> None:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        content: Json
        headers: dict[str, str]
        try:
            if split.path == "/token":
                content, headers = (
                    {
                        "access_token": TOKEN,
                        "issued_token_type": "access_token",
                        "token_type": "Bearer",
                        "expires_in": 3600,
                    },
                    {},
                )
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                raise Refused(401, "required", "Login Required.")
            else:
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
            rows = self._warehouse.arrow(f"{project}.{dataset}.{table}")
        half = -(-len(rows) // 2)
        halves = [part for part in (rows.slice(0, half), rows.slice(half)) if len(part)]
        names = [
            f"projects/{project}/locations/us/sessions/{uuid.uuid4().hex}/streams/{number}"
            for number in range(len(halves))
        ]
        self._streams |= dict(zip(names, halves, strict=True))
        return messages.ReadSession(
            name="session",
            arrow_schema=messages.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes()),
            streams=[messages.ReadStream(name=name) for name in names],
        )

    def read_rows(self, request: Any, context: Any) -> Iterator[Any]:
        from google.cloud.bigquery_storage_v1 import types as messages

        rows = self._streams[request.read_stream].slice(request.offset)
        schema = messages.ArrowSchema(serialized_schema=rows.schema.serialize().to_pybytes())
        for number, batch in enumerate(rows.to_batches(max_chunksize=2)):
            data = messages.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            yield messages.ReadRowsResponse(
                arrow_record_batch=data, row_count=len(batch), arrow_schema=None if number else schema
            )


def _grpc_server(warehouse: Warehouse, address: str) -> Any:
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
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("google.cloud.bigquery.storage.v1.BigQueryRead", handlers)]
    )
    server.add_insecure_port(address)
    return server


@pytest.fixture(scope="session")
def bigquery_server(pytestconfig: pytest.Config) -> Iterator[Warehouse]:
    """The two servers, for the session, and Ray's reader led to the second: no variable of Google's does that."""
    from ray.data._internal.datasource import bigquery_datasource

    listener, held = pytestconfig.stash[_SOCKETS]
    warehouse = Warehouse()
    listener.listen(128)
    rest = ThreadingHTTPServer(
        listener.getsockname(), type("Rest", (_Rest,), {"warehouse": warehouse}), bind_and_activate=False
    )
    rest.socket.close()
    rest.socket = listener
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"127.0.0.1:{held.getsockname()[1]}"
    storage = _grpc_server(warehouse, address)
    storage.start()
    with pytest.MonkeyPatch.context() as patch:
        # Read tasks carry it to the workers.
        patch.setattr(bigquery_datasource, "_create_read_client", partial(_read_client, address))
        yield warehouse
    storage.stop(None)
    rest.shutdown()
    thread.join()


def _read_client(address: str) -> Any:
    import grpc
    from google.cloud.bigquery_storage import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=grpc.insecure_channel(address)))


@pytest.fixture
def bigquery(bigquery_server: Warehouse) -> tuple[Warehouse, str]:
    """The warehouse, and the name of a new, empty dataset."""
    name = f"dataset_{uuid.uuid4().hex[:12]}"
    bigquery_server.datasets.add(name)
    return bigquery_server, name
