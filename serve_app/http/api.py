"""The HTTP API: FastAPI for the documents, a plain table of endpoints for everything that must be fast."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import pyarrow as pa
from fastapi import FastAPI

from serve_app.errors import RequestError, overloaded
from serve_app.http import page
from serve_app.http.keys import Keys
from serve_app.http.openapi import document
from serve_app.http.wire import (
    ARROW,
    Call,
    Disconnected,
    Receive,
    Reply,
    Scope,
    Send,
    error_reply,
    json_reply,
    read_body,
    request_id,
    send_reply,
    too_many,
    wrong_body,
)
from serve_app.metrics import Metrics, NoMetrics
from serve_app.model.predictor import Predictor
from serve_app.model.reloader import Follower
from serve_app.options import ServeOptions
from serve_app.protocols import v2
from serve_app.protocols.arrow import read_stream, score_table
from transforms.contract import CATEGORY

# Below the logger of Ray Serve, so that it lands in the replica's log.
logger = logging.getLogger("ray.serve.nightprice")

T = TypeVar("T")
Endpoint = Callable[[Call], Awaitable[Reply] | Reply]
# Bodies of at most so many bytes and listings are scored in the event loop: a thread would cost more than they do.
INLINE_BYTES = 8_192
INLINE_ROWS = 32
# Answered without a key: health for whoever watches the service, documents and the page for people.
OPEN_PATHS = {
    "/",
    "/page.css",
    "/page.js",
    "/docs.js",
    "/healthz",
    "/readyz",
    "/docs",
    "/openapi.json",
    "/v2/health/live",
    "/v2/health/ready",
}


class Api(FastAPI):
    """The application: endpoints of the table are answered straight from ASGI, the rest by FastAPI.

    FastAPI's own work on a request takes longer than a prediction.
    """

    def __init__(
        self,
        follower: Follower,
        options: ServeOptions,
        metrics: Metrics | None = None,
        *,
        sends_request_id: bool = True,
    ) -> None:
        """`sends_request_id=False` where Ray Serve puts it into every answer."""
        super().__init__(title="Nightprice", version=_version(), docs_url=None, redoc_url=None, openapi_url=None)
        self._follower, self._options, self._metrics = follower, options, metrics or NoMetrics()
        self._sends_request_id = sends_request_id
        self._keys = Keys(options.api_keys)
        self._bulk = ThreadPoolExecutor(options.max_ongoing_requests, thread_name_prefix="nightprice-bulk")
        self._counting = threading.Lock()
        self._in_hand, self._most_in_hand = 0, options.max_ongoing_requests + options.max_queued_requests
        self._small_in_turn = 0
        self._document = document(self.version, options.max_rows, bool(options.api_keys))
        self._table: dict[str, dict[str, Endpoint]] = {
            "/v1/predict": {"POST": self._predict},
            "/v1/predict/batch": {"POST": self._predict_batch},
            "/v1/explain": {"POST": self._explain},
            "/v1/model": {"GET": self._model},
            "/healthz": {"GET": lambda call: json_reply({"status": "ok"})},
            "/readyz": {"GET": self._ready},
            "/openapi.json": {"GET": lambda call: json_reply(self._document)},
            **{path: {"GET": _fixed(reply)} for path, reply in page.replies().items()},
        }

    def openapi(self) -> dict[str, Any]:
        """The document, derived from the contract table."""
        return self._document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event stream: HTTP by the table; lifespan, and what else there is, by FastAPI."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        number, method = request_id(headers), scope["method"]
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        route = "other"
        try:
            route, endpoint = self._find(path, method)
            if path not in OPEN_PATHS:
                self._keys.check(headers)
            body = await self._read(headers, receive) if method == "POST" else b""
            if method == "POST" and len(body) <= INLINE_BYTES:
                self._join_turn()
            answer = endpoint(Call(method, path, headers, body, number))
            reply = answer if isinstance(answer, Reply) else await answer
        except Disconnected:
            return
        except RequestError as error:
            reply = self._refusal(error, path, number)
        except Exception:
            logger.exception("A request failed", extra={"request": number, "endpoint": route})
            reply = self._refusal(
                RequestError(500, "internal", "The service failed. Its log has the reason under this request id."),
                path,
                number,
            )
        await send_reply(send, reply, number if self._sends_request_id else None, method == "HEAD")
        self._metrics.request(route, reply.status, time.perf_counter() - started)

    def _find(self, path: str, method: str) -> tuple[str, Endpoint]:
        """The route, as metrics call it, and its endpoint. Raises RequestError 404 or 405."""
        methods = self._table.get(path)
        route = path
        if methods is None:
            found = v2.find(path)
            if found is None:
                raise RequestError(404, "not_found", "There is nothing at this path. See /docs.")
            route, kind, model = found
            methods = self._v2_endpoints(kind, model)
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise RequestError(
                405, "wrong_method", f"Use {' or '.join(methods)} here.", headers={"Allow": ", ".join(methods)}
            )
        return route, endpoint

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        return await read_body(headers, receive, self._options.max_body_bytes, self._options.body_timeout_s)

    def _join_turn(self) -> None:
        """Count a small request. Raises RequestError 503 if the present turn of the event loop has had its fill of
        them.

        All that came during one turn are answered in the next: their number is the length of the queue.
        """
        if not self._small_in_turn:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._small_in_turn += 1
        if self._small_in_turn > self._options.max_small_requests:
            raise overloaded()

    def _end_turn(self) -> None:
        self._small_in_turn = 0

    def _refusal(self, error: RequestError, path: str, number: str) -> Reply:
        if error.reasons:
            self._metrics.rejected(error.reasons)
        logger.debug("Refused: %s", error, extra={"request": number})
        return v2.error_reply(error) if path.startswith("/v2") else error_reply(error, number)

    def _predict(self, call: Call) -> Reply | Awaitable[Reply]:
        predictor = self._follower.predictor
        if len(call.body) > INLINE_BYTES:
            return self._in_thread(self._score_one, call, predictor)
        return self._score_one(call, predictor)

    def _score_one(self, call: Call, predictor: Predictor) -> Reply:
        listing = call.json()
        started = time.perf_counter()
        answer = predictor.predict(listing)
        self._metrics.predictions(predictor.ref, {answer[CATEGORY]: 1}, time.perf_counter() - started)
        return json_reply(answer)

    async def _predict_batch(self, call: Call) -> Reply:
        if call.content_type == ARROW:
            return await self._score(call, lambda call, max_rows: read_stream(call.body, max_rows), self._score_table)
        return await self._score(call, _listings, self._score_listings)

    async def _score(
        self, call: Call, read: Callable[[Call, int], Any], score: Callable[[Any, Predictor], Reply]
    ) -> Reply:
        """Read and score many listings: few in the event loop, more in a thread."""
        predictor, max_rows = self._follower.predictor, self._options.max_rows
        if len(call.body) > INLINE_BYTES:
            return await self._in_thread(lambda: score(read(call, max_rows), predictor))
        # Few bytes can mean many rows.
        rows = read(call, max_rows)
        return score(rows, predictor) if len(rows) <= INLINE_ROWS else await self._in_thread(score, rows, predictor)

    def _score_listings(self, listings: list[Any], predictor: Predictor) -> Reply:
        started = time.perf_counter()
        results = predictor.predict_many(listings)
        scored = Counter(result[CATEGORY] for result in results if CATEGORY in result)
        self._metrics.predictions(predictor.ref, scored, time.perf_counter() - started)
        if scored.total() < len(results):
            wrong = (result["error"]["problems"] for result in results if "error" in result)
            self._metrics.rejected(Counter(problem["reason"] for problems in wrong for problem in problems))
        return json_reply({"results": results, "model": predictor.ref})

    def _score_table(self, table: pa.Table, predictor: Predictor) -> Reply:
        started = time.perf_counter()
        scored = score_table(table, predictor)
        self._metrics.predictions(predictor.ref, scored.categories, time.perf_counter() - started)
        self._metrics.rejected(scored.reasons)
        return Reply(scored.content, content_type=ARROW)

    async def _explain(self, call: Call) -> Reply:
        predictor, listing = self._follower.predictor, call.json()
        return json_reply(await self._in_thread(predictor.explain, listing))

    def _model(self, call: Call) -> Reply:
        return json_reply({**describe(self._follower.predictor), **self._follower.status()})

    def _ready(self, call: Call) -> Reply:
        waiting = self._follower.waiting_for
        if waiting is None:
            return json_reply({"status": "ready", "model": self._follower.predictor.ref})
        return json_reply({"status": "waiting", "message": waiting}, 503, {"Retry-After": "5"})

    def _v2_endpoints(self, kind: str, model: v2.Wanted) -> dict[str, Endpoint]:
        if kind == v2.INFER:
            return {"POST": lambda call: self._infer(call, model)}
        return {"GET": lambda call: v2.describe(kind, model, self._follower, self.version)}

    async def _infer(self, call: Call, model: v2.Wanted) -> Reply:
        model.check(self._follower.predictor)
        return await self._score(call, v2.read_inputs, self._score_inputs)

    def _score_inputs(self, inputs: v2.Inputs, predictor: Predictor) -> Reply:
        started = time.perf_counter()
        reply, categories = v2.infer(inputs, predictor)
        self._metrics.predictions(predictor.ref, categories, time.perf_counter() - started)
        return reply

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Bulk work, so that one-row requests are answered meanwhile. Raises RequestError 503 if too much of it
        waits.
        """
        if self._in_hand >= self._most_in_hand:
            raise overloaded()
        with self._counting:
            self._in_hand += 1
        working = self._bulk.submit(work, *arguments)
        working.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                return await asyncio.wrap_future(working)
        except TimeoutError:
            limit = self._options.request_timeout_s
            raise RequestError(
                408, "timed_out", f"The answer took longer than {limit:g} s. Send fewer listings at once."
            ) from None

    def _done(self, working: Future[Any]) -> None:
        """Not when its request ends: a thread works on after a timeout."""
        with self._counting:
            self._in_hand -= 1


def describe(predictor: Predictor) -> dict[str, Any]:
    """What callers may know of a model: its manifest without where it was made."""
    shown = (
        "name",
        "version",
        "created",
        "estimator",
        "features",
        "labels",
        "pricing",
        "vocabulary",
        "metrics",
        "contract_version",
        "importance",
    )
    manifest = predictor.artifact.manifest
    return {
        "model": predictor.ref,
        **{key: manifest[key] for key in shown if key in manifest},
        "explains": predictor.explainer is not None,
    }


def _listings(call: Call, max_rows: int) -> list[Any]:
    body = call.json()
    listings = body.get("listings") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(listings, list):
        raise wrong_body("something else", 'an object {"listings": […]}')
    if len(listings) > max_rows:
        raise too_many(len(listings), max_rows)
    return listings


def _fixed(reply: Reply) -> Endpoint:
    return lambda call: reply


def _version() -> str:
    try:
        return version("nightprice")
    except PackageNotFoundError:  # a Ray job ships the source without installing it
        return "0"
