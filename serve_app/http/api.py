"""The HTTP API as an ASGI application: a plain table of endpoints, as a framework's own work would cost more than a
prediction.
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from serve_app.errors import RequestError, overloaded, timed_out
from serve_app.http import page
from serve_app.http.content_coding import coding_of, decompress, most_bytes
from serve_app.http.cors import Cors
from serve_app.http.held_bytes import UNCOUNTED_BYTES, HeldBytes, Hold, give_back
from serve_app.http.keys import Keys
from serve_app.http.load import Load
from serve_app.http.middleware import DIRECT
from serve_app.http.openapi import document, paths_without_key
from serve_app.http.wire import (
    ARROW,
    Disconnected,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    error_response,
    hung_up,
    json_response,
    read_body,
    request_id_of,
    send_response,
    too_many,
    wrong_body,
)
from serve_app.metrics import Metrics, NoMetrics
from serve_app.model.allowance import Allowance
from serve_app.model.predictor import Predictor
from serve_app.model.record import max_fields
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from serve_app.protocols import v2
from serve_app.protocols.arrow import check_columns, score_table
from serve_app.protocols.arrow_ipc import read_declared, read_stream

# Below the logger of Ray Serve, so that it lands in the replica's log.
logger = logging.getLogger("ray.serve.nightprice")

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
# Bodies up to this size that stand for up to so many values are scored in the event loop: a thread would cost more than
# they do. Values are fields of records, items of lists, entries of dictionaries. One record of 2 KiB can't have more.
MAX_INLINE_BYTES = 8_192
MAX_INLINE_VALUES = 1_000
MAX_PLAIN_BYTES = 2_048
# Parsed JSON may take so many times the memory that its body may.
PARSED_PER_BYTE = 8


@dataclass(frozen=True)
class _Work:
    """A request that was read as far as its values can be counted."""

    count_values: Callable[[], int]
    finish: Callable[[Allowance], Response]


Begin = Callable[[Request, Predictor], _Work]


class Api:
    """The application. One for each replica, which therefore counts all its requests together."""

    def __init__(self, reloader: ModelReloader, options: ServeOptions, metrics: Metrics | None = None) -> None:
        """Raises NightpriceError if the files of Swagger UI are not installed."""
        self.version = _version()
        self._reloader, self._options, self._metrics = reloader, options, metrics or NoMetrics()
        self._contract = reloader.contract
        self._max_fields = max_fields(self._contract)
        self._keys, self._cors = Keys(options.api_keys), Cors(options.cors_origins)
        self._open_routes = page.PATHS | {"/openapi.json"} | paths_without_key()
        self._bulk = ThreadPoolExecutor(options.max_ongoing_requests, thread_name_prefix="nightprice-bulk")
        self._lock = threading.Lock()
        self._in_flight, self._max_in_flight = 0, options.max_ongoing_requests + options.max_queued_requests
        self._small_in_iteration, self._iteration_began = 0, 0.0
        self.load = Load()
        self._held = HeldBytes(options.max_held_bytes, self._give_back_soon)
        self._max_parsed_bytes = PARSED_PER_BYTE * options.max_body_bytes
        self._openapi_response: tuple[Predictor | None, Response] | None = None
        self._table: dict[str, dict[str, Endpoint]] = {
            "/v1/predict": {"POST": self._predict},
            "/v1/predict/batch": {"POST": self._predict_batch},
            "/v1/explain": {"POST": self._explain},
            "/v1/model": {"GET": self._model},
            "/healthz": {"GET": _fixed(json_response({"status": "ok"}))},
            "/readyz": {"GET": self._ready},
            "/openapi.json": {"GET": self._openapi},
            **{path: {"GET": _fixed(response)} for path, response in page.responses().items()},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event stream. Websockets are refused."""
        if scope["type"] == "http":
            hold = Hold(self._held)
            try:
                await self._answer(scope, receive, send, hold)
            finally:
                hold.set(0)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, hold: Hold) -> None:
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id, method = request_id_of(headers), scope["method"]
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        route = "other"
        try:
            route, endpoint = self._find(path, method)
            # A preflight carries no key.
            if route not in self._open_routes and method != "OPTIONS":
                self._keys.check(scope["headers"])
            body = await self._read(headers, receive, hold) if method == "POST" else b""
            if method == "POST" and len(body) <= MAX_INLINE_BYTES:
                self._admit_small()
            response = await endpoint(Request(method, path, headers, body, request_id, receive))
            body = b""
            if len(response.body) > UNCOUNTED_BYTES:
                hold.set(len(response.body))
        except Disconnected:
            return
        except RequestError as error:
            response = self._refusal(error, path, request_id)
        except Exception:
            logger.exception("A request failed", extra={"request": request_id, "endpoint": route})
            fault = RequestError(500, "internal", "The service failed. Its log has the reason under this request id.")
            response = self._refusal(fault, path, request_id)
        if self._cors:
            response = replace(response, headers={**response.headers, **self._cors.headers(headers)})
        # Elsewhere Ray Serve adds the request id.
        own_id = request_id if DIRECT in scope else None
        await send_response(send, response, own_id, method == "HEAD", self._options.request_timeout_s)
        self._metrics.request(route, response.status, time.perf_counter() - started)

    def _find(self, path: str, method: str) -> tuple[str, Endpoint]:
        """The route, as metrics count it, and its endpoint. Raises RequestError 404 or 405."""
        route, methods = path, self._table.get(path)
        if methods is None:
            v2_route = v2.find(path)
            if v2_route is None:
                raise RequestError(404, "not_found", "This path does not exist. /docs lists those that do.")
            route, methods = v2_route.name, self._v2_endpoints(v2_route)
        if method == "OPTIONS" and self._cors:
            return route, _fixed(self._cors.preflight(methods))
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = {"Allow": ", ".join(methods)}
            raise RequestError(405, "wrong_method", f"Use {' or '.join(methods)} here.", headers=allowed)
        return route, endpoint

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive, hold: Hold) -> bytes:
        coding, limit = coding_of(headers), self._options.max_body_bytes
        body = await read_body(headers, receive, limit, self._options.body_timeout_s, hold)
        if coding is None:
            return body
        hold.set(len(body) + most_bytes(body, limit))
        content = await self._in_thread(lambda _: decompress(body, coding, limit), receive)
        hold.set(len(content))
        return content

    def _admit_small(self) -> None:
        """Count a small request. Raises RequestError 503 beyond the limit for one iteration of the event loop.

        Requests that are accepted in one iteration are answered in the next: their number is the length of the queue.
        """
        if not self._small_in_iteration:
            self._iteration_began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._end_iteration)
        self._small_in_iteration += 1
        if self._small_in_iteration > self._options.max_small_requests:
            raise overloaded()

    def _give_back_soon(self) -> None:
        # When nothing refers any more to what was held.
        asyncio.get_running_loop().call_later(1.0, self._bulk.submit, give_back)

    def _end_iteration(self) -> None:
        self.load.add(self._small_in_iteration, time.perf_counter() - self._iteration_began)
        self._small_in_iteration = 0

    def _refusal(self, error: RequestError, path: str, request_id: str) -> Response:
        if error.reasons:
            self._metrics.rejected(error.reasons)
        logger.debug("Refused: %s", error, extra={"request": request_id})
        return v2.error_response(error) if path.startswith("/v2") else error_response(error, request_id)

    async def _predict(self, request: Request) -> Response:
        predictor = self._reloader.predictor
        if len(request.body) <= MAX_PLAIN_BYTES:
            return self._score_record(request.json(), predictor)
        return await self._score(request, predictor, self._begin_record)

    def _begin_record(self, request: Request, predictor: Predictor) -> _Work:
        record = request.json(self._max_parsed_bytes)
        return _Work(lambda: _values_of([record]), lambda _: self._score_record(record, predictor))

    def _score_record(self, record: Any, predictor: Predictor) -> Response:
        with _Measured(self._metrics, predictor) as measured:
            answer = predictor.predict(record)
            measured.labels = {answer[self._contract.label_name]: 1}
        return json_response(answer)

    async def _predict_batch(self, request: Request) -> Response:
        predictor = self._reloader.predictor
        is_arrow = request.content_type == ARROW
        return await self._score(request, predictor, self._begin_table if is_arrow else self._begin_records)

    async def _score(self, request: Request, predictor: Predictor, begin: Begin) -> Response:
        """Read and score: few values in the event loop, more in a thread."""
        if len(request.body) > MAX_INLINE_BYTES:
            return await self._in_thread(lambda allowance: begin(request, predictor).finish(allowance), request.receive)
        # Few bytes can mean many values.
        work = begin(request, predictor)
        if work.count_values() <= MAX_INLINE_VALUES:
            return work.finish(Allowance())
        return await self._in_thread(work.finish, request.receive)

    def _begin_records(self, request: Request, predictor: Predictor) -> _Work:
        records = self._read_records(request)
        return _Work(lambda: _values_of(records), lambda allowance: self._score_records(records, predictor, allowance))

    def _read_records(self, request: Request) -> list[Any]:
        body, key = request.json(self._max_parsed_bytes), self._contract.records
        records = body.get(key) if isinstance(body, dict) and len(body) == 1 else None
        if not isinstance(records, list):
            raise wrong_body("something else", f'an object {{"{key}": […]}}')
        if len(records) > self._options.max_rows:
            raise too_many(len(records), self._options.max_rows)
        return records

    def _score_records(self, records: list[Any], predictor: Predictor, allowance: Allowance) -> Response:
        label = self._contract.label_name
        with _Measured(self._metrics, predictor) as measured:
            results = predictor.predict_many(records, allowance)
            measured.labels = Counter(result[label] for result in results if label in result)
        problems = (result["error"]["problems"] for result in results if "error" in result)
        if reasons := Counter(problem["reason"] for several in problems for problem in several):
            self._metrics.rejected(reasons)
        return json_response({"results": results, "model": predictor.ref})

    def _begin_table(self, request: Request, predictor: Predictor) -> _Work:
        declared = read_declared(request.body, self._options.max_rows, self._max_fields)
        return _Work(lambda: declared.values, lambda allowance: self._score_stream(request.body, predictor, allowance))

    def _score_stream(self, body: bytes, predictor: Predictor, allowance: Allowance) -> Response:
        check = partial(check_columns, predictor=predictor)
        table = read_stream(body, self._options.max_rows, self._max_fields, check, allowance)
        with _Measured(self._metrics, predictor) as measured:
            scored = score_table(table, predictor, allowance)
            measured.labels = scored.labels
        self._metrics.rejected(scored.reasons)
        return Response(scored.content, content_type=ARROW)

    async def _explain(self, request: Request) -> Response:
        predictor = self._reloader.predictor

        def explain(_: Allowance) -> Response:
            return json_response(predictor.explain(request.json(self._max_parsed_bytes)))

        return await self._in_thread(explain, request.receive)

    async def _model(self, request: Request) -> Response:
        return json_response({**describe(self._reloader.predictor), **self._reloader.status()})

    async def _ready(self, request: Request) -> Response:
        waiting = self._reloader.waiting_for
        if waiting is None:
            return json_response({"status": "ready", "model": self._reloader.predictor.ref})
        return json_response({"status": "waiting", "message": waiting}, 503, {"Retry-After": "5"})

    async def _openapi(self, request: Request) -> Response:
        """Made anew for every model, as its example holds values that the model knows."""
        predictor = self._reloader.current
        if self._openapi_response is None or self._openapi_response[0] is not predictor:
            self._openapi_response = predictor, json_response(self._document(predictor))
        return self._openapi_response[1]

    def _document(self, predictor: Predictor | None) -> dict[str, Any]:
        artifact, options = predictor.artifact if predictor else None, self._options
        return document(
            self._contract,
            artifact.label if artifact else None,
            artifact.vocabulary if artifact else None,
            artifact.golden.features if artifact else None,
            version=self.version,
            max_rows=options.max_rows,
            needs_key=bool(options.api_keys),
        )

    def _v2_endpoints(self, route: v2.Route) -> dict[str, Endpoint]:
        if route.kind == v2.INFER:
            return {"POST": partial(self._infer, route)}
        return {"GET": partial(self._describe_v2, route)}

    async def _describe_v2(self, route: v2.Route, request: Request) -> Response:
        return v2.describe(route, self._reloader, self.version)

    async def _infer(self, route: v2.Route, request: Request) -> Response:
        predictor = self._reloader.predictor
        route.model.check(predictor)
        return await self._score(request, predictor, self._begin_tensors)

    def _begin_tensors(self, request: Request, predictor: Predictor) -> _Work:
        inputs = v2.read_inputs(request, self._options.max_rows, self._max_fields, self._max_parsed_bytes)
        return _Work(
            lambda: inputs.rows * len(inputs.columns),
            lambda allowance: self._score_tensors(inputs, predictor, allowance),
        )

    def _score_tensors(self, inputs: v2.Inputs, predictor: Predictor, allowance: Allowance) -> Response:
        with _Measured(self._metrics, predictor) as measured:
            response, measured.labels = v2.infer(inputs, predictor, allowance)
        return response

    async def _in_thread(self, work: Callable[[Allowance], T], receive: Receive | None) -> T:
        """Bulk work, so that one-row requests are answered meanwhile.

        Raises RequestError 503 if too much of it waits, 408 if it takes too long; Disconnected. With either of the
        latter the work ends at its next check, or before its start.
        """
        if self._in_flight >= self._max_in_flight:
            raise overloaded()
        with self._lock:
            self._in_flight += 1
        self.load.begin()
        seconds = self._options.request_timeout_s
        allowance = Allowance(seconds, self._options.max_body_bytes)
        submitted = self._bulk.submit(work, allowance)
        submitted.add_done_callback(self._done)
        working, hanging_up = asyncio.wrap_future(submitted), asyncio.ensure_future(hung_up(receive))
        try:
            await asyncio.wait((working, hanging_up), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Disconnected if hanging_up.done() else timed_out(seconds)
        finally:
            allowance.stop()
            working.cancel()
            hanging_up.cancel()
            # An error refers to this frame: referred to from here, it would keep the request until the next collection.
            del working, submitted

    def _done(self, working: Future[Any]) -> None:
        """Not when its request ends: a thread continues after a timeout."""
        with self._lock:
            self._in_flight -= 1
        self.load.end()


def _values_of(records: list[Any]) -> int:
    """How many fields records have, and items of lists."""
    parts = (part for record in records if isinstance(record, dict) for part in record.values())
    return len(records) + sum(1 + len(part) if isinstance(part, list) else 1 for part in parts)


class _Measured:
    """Reports to metrics which labels a model gave, and how long that took: the block sets `labels`.

    Not a generator with `contextmanager`, which would cost more than all else here.
    """

    __slots__ = ("_metrics", "_predictor", "_started", "labels")

    def __init__(self, metrics: Metrics, predictor: Predictor) -> None:
        self._metrics, self._predictor = metrics, predictor
        self.labels: Mapping[str, int] = {}

    def __enter__(self) -> "_Measured":
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._metrics.predictions(self._predictor.ref, self.labels, time.perf_counter() - self._started)


def describe(predictor: Predictor) -> dict[str, Any]:
    """What callers may know of a model: its manifest without where it was made."""
    public = (
        "name",
        "version",
        "created",
        "estimator",
        "contract",
        "label",
        "features",
        "vocabulary",
        "metrics",
        "importance",
    )
    manifest: Mapping[str, Any] = predictor.artifact.manifest
    return {
        "model": predictor.ref,
        **{key: manifest[key] for key in public if key in manifest},
        "labels": predictor.artifact.labels,
        "explains": predictor.explainer is not None,
    }


def _fixed(response: Response) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return response

    return endpoint


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing is to be done at the start and at the end, but the server waits for these messages."""
    message: Mapping[str, Any] = {"type": ""}
    while message["type"] != "lifespan.shutdown":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


def _version() -> str:
    try:
        return version("nightprice")
    except PackageNotFoundError:  # a Ray job ships the source without installing it
        return "0"
