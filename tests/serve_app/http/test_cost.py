"""Small requests that stand for much work: refused, or answered, at a cost that their size explains."""

import asyncio
import gc
import gzip
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import RequestError
from serve_app.http.api import MAX_INLINE_VALUES, Api
from serve_app.model.allowance import Allowance
from serve_app.model.record import MAX_LIST_ITEMS
from serve_app.protocols.arrow_ipc import MAX_MESSAGES
from tests.support.serving.client import Client
from tests.support.serving.cost import with_peak
from tests.support.serving.requests import EXAMPLE, INFER, dictionary, listings_table, stream_of, tensor

MIB = 2**20


def code_of(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"] if answer.status_code != 200 else None


def test_a_declared_dictionary_is_not_made(client: Client) -> None:
    for name, entries in (("beds", pa.nulls(2**25)), ("bedrooms", pa.array(np.zeros(4_000_000, np.bool_)))):
        body = stream_of({name: dictionary(entries)})

        answer, peak = with_peak(lambda body=body: client.arrow(body))  # type: ignore[misc]

        assert code_of(answer) == (413, "too_many_values")
        assert peak < 8 * len(body) + 10 * MIB


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_a_refused_request_is_not_kept_until_garbage_is_collected(client: Client, path: str) -> None:
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        answer = client.post(path, {**EXAMPLE, "room_type": "x" * 100_000})
        gc.collect()
        kept = [found for found in gc.garbage if isinstance(found, RequestError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

    assert (answer.status_code, kept) == (422, [])


def test_of_a_dictionary_only_what_rows_use_is_decoded(client: Client) -> None:
    numbers = pa.array(np.arange(90_000) % 50, pa.float32())

    for entries in (pa.nulls(90_000, pa.null()), numbers):
        body = stream_of({"beds": dictionary(entries, 3, pa.int32())})
        answer, peak = with_peak(partial(client.arrow, body))
        assert answer.status_code == 200
        # Each as a number of Python would be 24 bytes, with its place 32.
        assert peak < 4 * MIB


@pytest.mark.parametrize("entries", [pa.nulls(2), pa.array([1.5, 2]), pa.array([True, False])], ids=str)
def test_batches_with_dictionaries_of_their_own_are_one(client: Client, entries: pa.Array) -> None:
    plain = [
        {"tv" if pa.types.is_boolean(entries.type) else "beds": entries.take(pa.array(rows))} for rows in ([0, 1], [1])
    ]
    coded = [
        {name: pa.DictionaryArray.from_arrays(pa.array(rows), entries)}
        for (name, *_), rows in zip(plain, ([0, 1], [1]), strict=True)
    ]

    answers = [client.arrow(stream_of(*batches)) for batches in (plain, coded)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("length", [900, 30_000])
def test_a_long_text_of_many_rows_is_not_written_out(client: Client, length: int) -> None:
    batches = [{"property_type": dictionary(pa.array([sign * length]), 20_000)} for sign in "ab"]
    body = stream_of(*batches)

    answer, peak = with_peak(lambda: client.arrow(body))

    assert code_of(answer) == ((200, None) if length == 900 else (413, "body_too_large"))
    assert peak < 40_000 * 1_000 * 4


def test_two_dictionaries_of_texts_that_are_too_long_have_a_reason(client: Client) -> None:
    answer = client.arrow(stream_of(*({"property_type": dictionary(pa.array([sign * 50_000]), 2)} for sign in "ab")))

    assert answer.status_code == 200
    problems = pa.ipc.open_stream(answer.content).read_all()["problems"].to_pylist()
    assert problems == [["property_type:out_of_range"]] * 4


def test_a_dictionary_that_grows_batch_by_batch_has_a_limit(client: Client) -> None:
    """Each batch extends a long dictionary by one entry: Arrow makes it anew for every batch."""
    texts, batches = [str(number) * 25 for number in range(40_000)], []
    for more in range(120):
        entries = pa.array([*texts, *map(str, range(more))])
        batches.append({"property_type": dictionary(entries, 2)})
    body = stream_of(*batches, emit_dictionary_deltas=True)
    assert len(body) < 8 * MIB

    answer, peak = with_peak(lambda: client.arrow(body))

    assert code_of(answer) == (413, "body_too_large")
    assert peak < 300 * MIB


STRANGE = {
    "a fixed list of nothing": pa.array([None], pa.list_(pa.null(), 2**30)),
    "a list of nothing": pa.ListArray.from_arrays([0, 2**30], pa.nulls(2**30)),
    "a list of nothing, large": pa.LargeListArray.from_arrays([0, 2**31 - 1], pa.nulls(2**31 - 1)),
    "runs": pa.RunEndEncodedArray.from_arrays([2**30], pa.array(["Flat"])).slice(0, 1),
    "a struct": pa.StructArray.from_arrays([pa.nulls(1)] * 3, list("abc")),
    "a map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "a union": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.nulls(1)]),
    "an extension": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
    "an identifier": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))),
    "a dictionary of lists": dictionary(pa.array([["TV"] * 1_000]), 1),
    "a dictionary of structs": dictionary(pa.array([{"a": [1] * 1_000}]), 1),
    "a dictionary of runs": dictionary(pa.RunEndEncodedArray.from_arrays([50_000], ["Flat"]), 1),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("name", ["amenities", "beds", "property_type"])
def test_columns_that_cannot_be_scored_are_refused_before_they_are_decoded(
    client: Client, name: str, kind: str
) -> None:
    try:
        body = stream_of({name: STRANGE[kind]})
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        pytest.skip(f"Arrow does not write it: {error}")

    answer, peak = with_peak(lambda: client.arrow(body))

    assert answer.status_code in (413, 422), answer.text
    assert peak < 4 * MIB


def test_lists_that_share_their_items_are_counted_in_each(client: Client) -> None:
    rows, items = 1_000, 50_000
    shared = pa.ListViewArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array([items] * rows, pa.int32()), pa.array([""] * items)
    )

    answer, peak = with_peak(lambda: client.arrow(stream_of({"amenities": shared})))

    assert code_of(answer) == (413, "too_many_values")
    assert peak < 8 * MIB


def test_views_of_one_text_are_counted_before_they_are_validated(client: Client) -> None:
    text, rows = b"x" * MIB, 50_000
    view = len(text).to_bytes(4, "little") + text[:4] + bytes(8)
    views = pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(view * rows), pa.py_buffer(text)])

    answer, peak = with_peak(lambda: client.arrow(stream_of({"property_type": views})))

    assert code_of(answer) == (413, "body_too_large")
    assert peak < 40 * MIB


def test_very_many_batches_are_refused(client: Client) -> None:
    nothing = {"beds": pa.array([], pa.float32())}

    assert code_of(client.arrow(stream_of(*[nothing] * (MAX_MESSAGES + 1)))) == (413, "too_many_values")
    assert client.arrow(stream_of(*[nothing] * MAX_MESSAGES)).status_code == 200


def test_many_different_items_are_refused(client: Client) -> None:
    many = pa.array([[f"{row} {item}" for item in range(1_000)] for row in range(101)])

    assert code_of(client.arrow(stream_of({"amenities": many}))) == (413, "too_many_values")


def test_a_long_list_fails_alone_however_it_is_sent(client: Client) -> None:
    lists: list[list[str]] = [["TV"] * (MAX_LIST_ITEMS + 1), ["TV"], ["x" * 1_001]]
    expected = [["amenities:out_of_range"], None, ["amenities:out_of_range"]]

    arrow = pa.ipc.open_stream(client.arrow(stream_of({"amenities": pa.array(lists)})).content).read_all()
    results = client.post("/v1/predict/batch", {"listings": [{**EXAMPLE, "amenities": one} for one in lists]}).json()
    found = [result.get("error", {"problems": ()})["problems"] for result in results["results"]]

    assert arrow["problems"].to_pylist() == expected
    assert [[problem["reason"] for problem in problems] or None for problems in found] == expected
    for path in ("/v1/predict", "/v1/explain"):
        answer = client.post(path, {**EXAMPLE, "amenities": [""] * 1_000_000})
        assert code_of(answer) == (422, "invalid_listing")
        assert "expected at most 10,000 texts of at most 1,000 characters" in answer.text


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain", "/v1/predict/batch", INFER])
def test_a_huge_text_is_cut_before_anything_is_compared(client: Client, path: str) -> None:
    flags = {"tv", "internet", "elevator"}
    for name in ("room_type", "neighbourhood", "property_type"):
        listing = {**EXAMPLE, name: "é" * 3_000_000}
        tensors = [tensor(field, [value]) for field, value in listing.items() if field not in flags]
        bodies = {"/v1/predict/batch": {"listings": [listing]}, INFER: {"inputs": tensors}}
        body = json.dumps(bodies.get(path, listing), ensure_ascii=False).encode()

        answer, peak = with_peak(lambda body=body: client.post(path, content=body))  # type: ignore[misc]

        assert answer.status_code == {INFER: 400, "/v1/predict/batch": 200}.get(path, 422)
        assert "a text of at most 1,000 characters" in answer.text
        assert len(answer.content) < 2_000
        assert peak < 12 * len(body)


def test_problems_of_a_batch_have_a_budget(make_client: Callable[..., Client]) -> None:
    narrow = make_client(max_body_bytes=4 * MIB)
    unknown = {f"f{number}": 1 for number in range(64)}
    batches: list[list[dict[str, int]]] = [[unknown] * 4_000, [{}] * 20_000]
    for records in batches:
        answer, peak = with_peak(partial(narrow.post, "/v1/predict/batch", {"listings": records}))

        assert code_of(answer) == (413, "too_many_problems")
        assert len(answer.content) < 1_000
        assert peak < 50 * MIB


def test_the_first_problems_of_a_batch_are_told_in_full_and_the_others_in_short(client: Client) -> None:
    wrong = [{**EXAMPLE, "room_typ": 1, "neighbourhood": "Brook"}] * 100

    results = client.post("/v1/predict/batch", {"listings": wrong}).json()["results"]

    first, last = (result["error"]["problems"] for result in (results[0], results[-1]))
    assert [problem["reason"] for problem in first] == [problem["reason"] for problem in last]
    assert 'Did you mean "room_type"?' in first[0]["message"]
    assert '"Staten Island"' in first[1]["expected"]
    assert [problem["expected"] for problem in last] == ["a known field", "one that the model knows"]


def test_problems_of_columns_have_a_budget(make_client: Callable[..., Client]) -> None:
    narrow = make_client(max_body_bytes=2 * MIB)
    bad = {name: pa.nulls(20_000, pa.int64()) for name in ("id", "accommodates", "latitude", "longitude")}
    body = stream_of({**bad, "room_type": pa.array([""] * 20_000), "tv": pa.array([7] * 20_000, pa.int8())})

    assert code_of(narrow.arrow(body)) == (413, "too_many_problems")


@pytest.mark.parametrize("value", ["{}", "[]", "0", '""', '{"a":0}'])
def test_json_of_very_many_values_is_refused_before_it_is_parsed(
    make_client: Callable[..., Client], value: str
) -> None:
    narrow = make_client(max_body_bytes=8 * MIB)
    many = ",".join([value] * (7 * MIB // (len(value) + 1))).encode()
    bodies = {
        "/v1/predict": b'{"amenities": [' + many + b"]}",
        "/v1/explain": b'{"amenities": [' + many + b"]}",
        "/v1/predict/batch": b'{"listings": [' + many + b"]}",
        INFER: b'{"inputs": [' + many + b"]}",
    }
    for path, body in bodies.items():
        answer, peak = with_peak(lambda path=path, body=body: narrow.post(path, content=body))  # type: ignore[misc]

        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 1_000
        assert peak < 12 * len(body)


def test_compressed_bodies_are_counted_as_what_they_become(make_client: Callable[..., Client]) -> None:
    narrow = make_client(max_body_bytes=8 * MIB)
    body = gzip.compress(b'{"listings": [' + b",".join([b"{}"] * 2_000_000) + b"]}")
    assert len(body) < 20_000

    answer, peak = with_peak(
        lambda: narrow.post("/v1/predict/batch", content=body, headers={"content-encoding": "gzip"})
    )

    assert answer.json()["error"]["code"] == "too_many_values"
    assert peak < 40 * MIB


def test_a_protocol_request_of_very_many_tensors_is_refused(client: Client) -> None:
    many = {"inputs": [{"name": f"t{number}"} for number in range(100_000)]}

    assert client.post(INFER, many).status_code == 400


def test_empty_binary_texts_are_counted_while_they_are_read(client: Client) -> None:
    content = bytes(8 * MIB)
    head = {"name": "room_type", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(content)}}
    header = json.dumps({"inputs": [head]}).encode()

    answer, peak = with_peak(
        lambda: client.post(
            INFER, content=header + content, headers={"inference-header-content-length": str(len(header))}
        )
    )

    assert answer.status_code == 400
    assert peak < 4 * len(content)


def test_names_and_ids_of_the_protocol_are_not_repeated_at_any_length(client: Client) -> None:
    for request in ({"inputs": [{"name": "x" * MIB}]}, {"inputs": [tensor("id", [1])], "id": "x" * MIB}):
        answer = client.post(INFER, request)

        assert answer.status_code == 400
        assert len(answer.content) < 200


def in_threads(api: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every request that leaves the event loop."""
    seen: list[str] = []
    genuine = Api._in_thread

    async def noting(self: Api, *arguments: Any) -> Any:
        seen.append("in a thread")
        return await genuine(self, *arguments)

    monkeypatch.setattr(Api, "_in_thread", noting)
    return seen


def test_small_is_what_stands_for_few_values(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = in_threads(client.api, monkeypatch)
    few = {"listings": [EXAMPLE] * 20}

    client.post("/v1/predict", EXAMPLE)
    client.post("/v1/predict/batch", few)
    client.arrow(stream_of({"beds": pa.array([1.0])}))
    assert not seen

    many_items = {**EXAMPLE, "amenities": [""] * MAX_INLINE_VALUES}
    client.post("/v1/predict", many_items)
    client.post("/v1/predict/batch", {"listings": [many_items]})
    client.post("/v1/predict/batch", {"listings": [{"a": 1, "b": 1, "c": 1, "d": 1}] * 300})
    client.arrow(stream_of({"beds": dictionary(pa.nulls(2_000))}))
    client.arrow(stream_of({"amenities": pa.array([["TV"] * MAX_INLINE_VALUES])}))
    client.post("/v1/explain", EXAMPLE)
    assert len(seen) == 6


def test_work_ends_with_its_time(make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread itself ends: its place is free although the records were far from done."""
    ended = threading.Event()
    genuine = Allowance.check

    def check(self: Allowance) -> None:
        try:
            genuine(self)
        except Exception:
            ended.set()
            raise

    monkeypatch.setattr(Allowance, "check", check)
    hurried = make_client(request_timeout_s=0.01, max_ongoing_requests=1)

    answer = hurried.post("/v1/predict/batch", {"listings": [EXAMPLE] * 50_000})

    assert code_of(answer) == (408, "timed_out")
    assert ended.wait(20)


def test_work_ends_with_its_caller(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    began, stopped = threading.Event(), threading.Event()

    def explain(*_: Any) -> Any:
        began.set()
        assert stopped.wait(20)
        return {}

    monkeypatch.setattr("serve_app.model.predictor.Predictor.explain", explain)
    monkeypatch.setattr(Allowance, "stop", lambda _: stopped.set())

    async def ask() -> list[Any]:
        parts, sent = [{"type": "http.request", "body": json.dumps(EXAMPLE).encode()}], list[Any]()

        async def receive() -> Any:
            if parts:
                return parts.pop()
            await asyncio.to_thread(began.wait, 20)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/explain", "headers": []}
        await client.api(scope, receive, send)
        return sent

    assert asyncio.run(ask()) == []
    assert stopped.is_set()


class Slow:
    """A request that sends half its body and then waits, in an event loop of the test."""

    def __init__(self, api: Any, declared: int, arrived: int) -> None:
        self.sent: list[Any] = []
        self._more = asyncio.Event()
        self._parts = [{"type": "http.request", "body": b" " * arrived, "more_body": True}]
        headers = [(b"content-length", str(declared).encode())] if declared else []
        scope = {"type": "http", "method": "POST", "path": "/v1/predict/batch", "headers": headers}
        self.task = asyncio.create_task(api(scope, self._receive, self._send))

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    async def _receive(self) -> Any:
        if self._parts:
            return self._parts.pop()
        await self._more.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def hang_up(self) -> None:
        self._more.set()
        await self.task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("declares", [True, False])
def test_bodies_that_are_being_read_have_a_total(make_client: Callable[..., Client], declares: bool) -> None:
    api = make_client(max_held_bytes=4 * MIB).api

    async def ask() -> list[int | None]:
        slow = [Slow(api, 2 * MIB if declares else 0, MIB) for _ in range(3)]
        await settled()
        fourth = Slow(api, 2 * MIB if declares else 0, 3 * MIB // 2)
        await settled()
        small = Slow(api, 5, 5)
        await settled()
        found = [one.status for one in (*slow, fourth, small)]
        for one in slow:
            await one.hang_up()
        fifth = Slow(api, 2 * MIB, MIB)
        await settled()
        found.append(fifth.status)
        await asyncio.gather(small.hang_up(), fifth.hang_up())
        return found

    assert asyncio.run(ask()) == [None, None, None, 503, None, None]


def test_who_is_alone_may_send_as_much_as_a_request_may_have(make_client: Callable[..., Client]) -> None:
    narrow = make_client(max_held_bytes=10_000)

    assert narrow.post("/v1/predict/batch", {"listings": [EXAMPLE] * 500}).status_code == 200


def test_an_answer_that_is_not_taken_is_held_no_longer_than_a_request_may_take(
    make_client: Callable[..., Client],
) -> None:
    """It is given to the server in parts, as the client takes them; the total counts it until then."""
    client = make_client(request_timeout_s=2.0)
    body = json.dumps({"listings": [EXAMPLE] * 4_000}).encode()
    api: Any = client.api

    async def ask() -> tuple[list[Any], int, int]:
        parts, sent, held = [{"type": "http.request", "body": body}], list[Any](), list[int]()

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > 2:
                held.append(api._held.total)
                await asyncio.Event().wait()

        scope = {"type": "http", "method": "POST", "path": "/v1/predict/batch", "headers": []}
        await api(scope, receive, send)
        return sent, held[0], api._held.total

    sent, held, afterwards = asyncio.run(ask())

    length = int(dict(sent[0]["headers"])[b"content-length"])
    assert (held, afterwards) == (length, 0)
    assert [part["more_body"] for part in sent[1:]] == [True, True]
    assert sum(len(part["body"]) for part in sent[1:]) < length


def test_one_huge_listing_beside_small_ones_fails_alone(client: Client) -> None:
    huge = {**EXAMPLE, "amenities": [["deep"]] * 100_000, **{f"f{number}": "x" * 5_000 for number in range(40)}}

    first, second, third = client.post("/v1/predict/batch", {"listings": [EXAMPLE, huge, EXAMPLE]}).json()["results"]

    assert first == third == client.post("/v1/predict", EXAMPLE).json()
    assert len(json.dumps(second)) < 40_000


def test_single_rows_are_answered_while_all_threads_work(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs much leaves the event loop, however few bytes it has."""
    began, end = threading.Event(), threading.Event()

    def read(*_: Any) -> Any:
        began.set()
        assert end.wait(20)
        return listings_table(1)

    monkeypatch.setattr("serve_app.http.api.read_stream", read)
    client = make_client(max_ongoing_requests=1, max_queued_requests=0)

    with ThreadPoolExecutor(1) as caller:
        working = caller.submit(client.arrow, stream_of({"beds": dictionary(pa.nulls(90_000))}))
        assert began.wait(20)
        assert client.post("/v1/predict", EXAMPLE).status_code == 200
        end.set()
        assert working.result(20).status_code == 200
