"""The HTTP API in process: every route, every refusal."""

import gzip
import json
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from registry.registry import Registry
from serve_app.http.api import Api
from serve_app.http.wire import ARROW
from serve_app.model.reloader import ModelReloader
from serve_app.options import ServeOptions
from serve_app.protocols.arrow import PROBLEMS
from tests.support.accepted_listings import accepted_listings
from tests.support.serving.client import Client, client_of
from tests.support.serving.metrics import CountingMetrics
from tests.support.serving.models import as_listings
from tests.support.serving.requests import EXAMPLE, INFER, listings_table, stream, tensor
from tests.support.tiny_model import FIRST, tiny_artifact
from transforms.listings import CONTRACT

KEY = "a-key-of-some-length"


def test_the_challenge_is_answered(client: Client) -> None:
    answer = client.post("/v1/predict", EXAMPLE)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["id", "price_category", "probabilities", "model"]
    assert (body["id"], body["model"]) == (1001, f"listing-price@{FIRST}")


def test_single_batch_and_arrow_agree_to_the_last_bit(client: Client) -> None:
    table = listings_table(300, seed=3)
    listings = as_listings(accepted_listings(300, seed=3))

    many = client.post("/v1/predict/batch", {"listings": listings}).json()["results"]
    arrow = pa.ipc.open_stream(client.arrow(stream(table)).content).read_all()

    assert [client.post("/v1/predict", listing).json() for listing in listings[:20]] == many[:20]
    assert arrow["id"].to_pylist() == [result["id"] for result in many]
    assert arrow[CONTRACT.label_name].to_pylist() == [result[CONTRACT.label_name] for result in many]
    for label in CONTRACT.label.labels:
        assert np.array_equal(
            arrow[f"probability_{label}"].to_numpy(),
            np.array([result["probabilities"][label] for result in many], np.float32),
        )
    assert set(arrow["model"].to_pylist()) == {f"listing-price@{FIRST}"}
    assert arrow[PROBLEMS].null_count == 300


def test_a_wrong_listing_is_told_everything(client: Client) -> None:
    answer = client.post(
        "/v1/predict", {**EXAMPLE, "room_type": "Entire home", "beds": -1, "bath": 2}, headers={"x-request-id": "me-1"}
    )

    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["request_id"], answer.headers["x-request-id"]) == ("invalid_listing", "me-1", "me-1")
    assert error["message"] == "3 fields are wrong: room_type, beds, bath."
    assert [problem["reason"] for problem in error["problems"]] == [
        "room_type:not_allowed",
        "beds:out_of_range",
        "bath:unknown_field",
    ]
    assert 'Did you mean "Entire home/apt"?' in error["problems"][0]["message"]


def test_a_listing_of_too_many_fields_is_told_that(client: Client) -> None:
    many = {f"field{number}": 1 for number in range(50_000)}

    for path, body in (("/v1/predict", many), ("/v1/explain", many), ("/v1/predict/batch", {"listings": [many]})):
        answer = client.post(path, body)
        assert "found 50,000 fields, expected at most 64" in answer.text
        assert len(answer.content) < 1_000


def test_wrong_fields_are_counted_by_every_way_in(reloader: ModelReloader) -> None:
    metrics = CountingMetrics()
    client = Client(Api(reloader, ServeOptions(), metrics))
    wrong = {**EXAMPLE, "beds": 1_000}
    rows = pa.Table.from_pylist([wrong, wrong, {**EXAMPLE, "beds": 1}])
    tensors = [{"name": name, "datatype": "FP64", "shape": [2], "data": [1_000, 1_000]} for name in ("beds", "bed")]

    def counted(path: str, **body: Any) -> dict[str, int]:
        metrics.reasons.clear()
        client.post(path, **body)
        return dict(metrics.reasons)

    assert counted("/v1/predict", json=wrong) == counted("/v1/explain", json=wrong) == {"beds:out_of_range": 1}
    assert counted("/v1/predict/batch", json={"listings": [wrong, wrong, EXAMPLE]}) == {"beds:out_of_range": 2}
    assert counted("/v1/predict/batch", content=stream(rows), headers={"content-type": ARROW}) == {
        "beds:out_of_range": 2
    }
    one_unknown = counted(
        "/v1/predict/batch", content=stream(rows.append_column("bed", rows["beds"])), headers={"content-type": ARROW}
    )
    assert one_unknown == {"bed:unknown_field": 1}
    assert counted("/v2/models/listing-price/infer", json={"inputs": tensors})["bed:unknown_field"] == 1
    whole = [
        {"name": name, "datatype": datatype_of(value), "shape": [2], "data": [value] * 2}
        for name, value in wrong.items()
    ]
    assert counted("/v2/models/listing-price/infer", json={"inputs": whole}) == {"beds:out_of_range": 2}


def datatype_of(value: Any) -> str:
    return "BYTES" if isinstance(value, str) else "FP64" if isinstance(value, float) else "INT64"


def test_amenities_that_lie_behind_a_null_are_nobodys(client: Client) -> None:
    rows = pa.Table.from_pylist(
        [{name: value for name, value in EXAMPLE.items() if name not in ("tv", "elevator", "internet")}] * 2
    )
    behind = pa.ListArray.from_arrays([0, 1, 2], ["Kitchen", "TV"], mask=pa.array([True, False]))

    def scored(amenities: pa.Array) -> Any:
        return pa.ipc.open_stream(client.arrow(stream(rows.append_column("amenities", amenities))).content).read_all()

    assert scored(behind) == scored(pa.array([None, ["TV"]]))
    assert scored(behind) != scored(pa.array([["Kitchen"], ["TV"]]))


def test_in_a_batch_only_the_wrong_one_fails(client: Client) -> None:
    answer = client.post("/v1/predict/batch", {"listings": [EXAMPLE, {**EXAMPLE, "id": 5, "tv": 7}, None]})

    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert first == client.post("/v1/predict", EXAMPLE).json()
    assert (second["id"], second["error"]["problems"][0]["reason"]) == (5, "tv:unparseable")
    assert (third["id"], third["error"]["problems"][0]["reason"]) == (None, "listing:unparseable")


def test_wrong_rows_of_a_stream_say_why(client: Client) -> None:
    rows = [{**EXAMPLE}, {**EXAMPLE, "id": 6, "room_type": "Flat", "beds": 1000}]

    answer = client.arrow(stream(pa.Table.from_pylist(rows)))

    table = pa.ipc.open_stream(answer.content).read_all()
    assert table[PROBLEMS].to_pylist() == [None, ["room_type:not_allowed", "beds:out_of_range"]]
    assert table["id"].to_pylist() == [1001, 6]
    assert table[CONTRACT.label_name].to_pylist()[1] is None
    assert table["probability_Low"].to_pylist()[1] is None


def test_explain_adds_the_contributions(client: Client) -> None:
    body = client.post("/v1/explain", EXAMPLE).json()

    assert {key: body[key] for key in ("id", CONTRACT.label_name, "probabilities", "model")} == client.post(
        "/v1/predict", EXAMPLE
    ).json()
    assert list(body["contributions"]) == list(CONTRACT.label.labels)
    assert list(body["contributions"]["Lux"]) == list(CONTRACT.features)


def test_a_model_that_cannot_explain_says_so(tmp_path: Path) -> None:
    reloader = ModelReloader(Registry(str(tmp_path)), str(tiny_artifact(tmp_path / "tiny")), CONTRACT)
    reloader.poll()

    answer = client_of(reloader).post("/v1/explain", EXAMPLE)

    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "no_explanation")


def test_the_model_is_described(client: Client) -> None:
    body = client.get("/v1/model").json()

    assert body["model"] == f"listing-price@{FIRST}"
    assert body["vocabulary"]["neighbourhood"]["Manhattan"] == 5
    assert body["metrics"] == {"accuracy": 0.7, "log_loss": 0.75}
    assert body["last_swap"]["result"] == "done"
    assert body["since"] == body["last_swap"]["when"]
    assert body["explains"] is True


def test_health(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "model": f"listing-price@{FIRST}"}
    assert client.request("HEAD", "/healthz").content == b""


def test_without_a_model_it_says_what_it_waits_for(tmp_path: Path) -> None:
    reloader = ModelReloader(Registry(str(tmp_path / "nowhere")), "listing-price@champion", CONTRACT)
    reloader.poll()
    waiting = client_of(reloader)

    assert waiting.get("/healthz").status_code == 200
    ready = waiting.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "waiting")
    assert "There is no registry at" in ready.json()["message"]
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/explain"):
        answer = waiting.post(path, EXAMPLE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert waiting.get("/v2/health/ready").status_code == 503


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"id": NaN}', 400),
        (b'{"id": Infinity}', 400),
        (b"\xff\xfe{\x00}\x00", 400),
        (b'"\xed\xa0\x80"', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b'{"id": ' + b"9" * 4_000 + b"}", 422),
        (b'{"id": ' + b"9" * 50_000 + b"}", 400),
        (b'{"\\ud800": 1}', 400),
    ],
)
def test_a_broken_body_is_the_clients_error(client: Client, body: bytes, status: int) -> None:
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/explain"):
        answer = client.post(path, content=body)

        assert answer.status_code == status, (path, answer.text)
        assert "Traceback" not in answer.text
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [[], {"listings": 1}, {"listing": []}, {"listings": [], "more": 1}, EXAMPLE])
def test_a_batch_of_another_shape_is_refused(client: Client, body: Any) -> None:
    assert client.post("/v1/predict/batch", body).status_code == 422


def test_broken_streams_are_the_clients_error(client: Client) -> None:
    whole = stream(listings_table(50))
    broken = [b"", b"text", whole[:100], whole[:-1000], whole[8:], b"\xff" * 1000]
    for body in broken:
        answer = client.arrow(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_stream"), body[:20]


def test_a_stream_that_would_fill_the_memory_is_refused(client: Client, make_client: Callable[..., Client]) -> None:
    compressed = client.arrow(stream(listings_table(5_000), compression="zstd"))
    assert (compressed.status_code, compressed.json()["error"]["code"]) == (415, "compressed_stream")

    nulls = pa.table({"id": pa.nulls(10_000_000)})
    assert make_client(max_rows=1_000).arrow(stream(nulls)).status_code == 413


def test_columns_that_do_not_fit_are_named(client: Client) -> None:
    table = listings_table(3).rename_columns(["id", "neighborhood", *listings_table(3).column_names[2:]])

    answer = client.arrow(stream(table))

    assert answer.status_code == 422
    reasons = [problem["reason"] for problem in answer.json()["error"]["problems"]]
    assert reasons == ["neighborhood:unknown_field", "neighbourhood:missing"]
    assert 'Did you mean "neighbourhood"?' in answer.json()["error"]["problems"][0]["message"]


def test_limits(make_client: Callable[..., Client]) -> None:
    small = make_client(max_body_bytes=1_000, max_rows=2)

    assert small.post("/v1/predict", content=b" " * 2_000).status_code == 413
    assert small.post("/v1/predict", content=b" " * 2_000, headers={"content-length": "10"}).status_code == 413
    assert small.post("/v1/predict/batch", {"listings": [1, 2, 3]}).status_code == 413
    assert small.post("/v1/predict/batch", {"listings": [1, 2]}).status_code == 200


def test_keys(make_client: Callable[..., Client], caplog: pytest.LogCaptureFixture) -> None:
    closed = make_client(api_keys=f"{KEY},another-key-of-a-caller")

    refused = closed.post("/v1/predict", EXAMPLE)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert closed.post("/v1/predict", EXAMPLE, headers={"x-api-key": KEY + "x"}).status_code == 401
    assert closed.post("/v1/predict", EXAMPLE, headers={"authorization": f"Basic {KEY}"}).status_code == 401
    assert closed.get("/v1/model").status_code == 401
    assert closed.post("/v2/models/listing-price/infer", {}).status_code == 401

    assert closed.post("/v1/predict", EXAMPLE, headers={"x-api-key": KEY}).status_code == 200
    assert (
        closed.post("/v1/predict", EXAMPLE, headers={"authorization": "bearer another-key-of-a-caller"}).status_code
        == 200
    )
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
        assert closed.get(path).status_code == 200
    for path in ("/v2/models/listing-price/ready", f"/v2/models/listing-price/versions/{FIRST}/ready"):
        assert closed.get(path).status_code == 200
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer some.gateway.token"), ("X-API-Key", KEY)], 200),
        ([("Authorization", "Basic eDp5"), ("X-API-Key", KEY)], 200),
        ([("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer some.gateway.token")], 200),
        ([("Authorization", "Bearer some.gateway.token"), ("Authorization", f"Bearer {KEY}")], 200),
        ([("X-API-Key", "of-something-in-between"), ("Authorization", f"bearer  {KEY}")], 200),
        ([("Authorization", "Bearer some.gateway.token"), ("X-API-Key", KEY + "x")], 401),
    ],
)
def test_a_key_counts_wherever_it_is(
    make_client: Callable[..., Client], headers: list[tuple[str, str]], status: int
) -> None:
    assert make_client(api_keys=KEY).get("/v1/model", headers=headers).status_code == status


FLAGS = {"tv", "internet", "elevator"}
POSTS = {
    "/v1/predict": EXAMPLE,
    "/v1/predict/batch": {"listings": [EXAMPLE]},
    "/v1/explain": EXAMPLE,
    INFER: {"inputs": [tensor(name, [value]) for name, value in EXAMPLE.items() if name not in FLAGS]},
}


def without_zlib_header(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("X-GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", without_zlib_header),
        ("identity", bytes),
    ],
)
def test_a_compressed_body_is_read(client: Client, path: str, coding: str, encode: Callable[[bytes], bytes]) -> None:
    plain = client.post(path, POSTS[path])

    content = encode(json.dumps(POSTS[path]).encode())
    answer = client.post(path, content=content, headers={"content-encoding": coding})

    assert (answer.status_code, answer.json()) == (200, plain.json())


def test_a_compressed_stream_of_columns_is_read(client: Client) -> None:
    body = stream(listings_table(50))

    assert client.arrow(gzip.compress(body), {"content-encoding": "gzip"}).content == client.arrow(body).content


def test_a_small_body_that_grows_is_refused(make_client: Callable[..., Client]) -> None:
    client = make_client(max_body_bytes=1_000)

    for coding, content in (("gzip", gzip.compress(b" " * 1_001)), ("deflate", zlib.compress(b" " * 10**8))):
        answer = client.post("/v1/predict", content=content[:1_000], headers={"content-encoding": coding})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("coding", "content", "status"),
    [
        ("br", b"{}", 415),
        ("zstd", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", b"", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-1], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) * 2, 400),
        ("deflate", b"\xff\xff", 400),
        ("deflate", gzip.compress(b"{}", mtime=0), 400),
    ],
)
def test_another_or_broken_compression_is_named(client: Client, coding: str, content: bytes, status: int) -> None:
    for path in POSTS:
        answer = client.post(path, content=content, headers={"content-encoding": coding})

        assert (answer.status_code, "Content-Encoding" in answer.text) == (status, True)
        assert ("accept-encoding" in answer.headers) == (status == 415)


@pytest.mark.parametrize("path", POSTS)
def test_a_byte_order_mark_is_passed_over(client: Client, path: str) -> None:
    body = json.dumps(POSTS[path])

    assert client.post(path, content=body.encode("utf-8-sig")).json() == client.post(path, POSTS[path]).json()
    answer = client.post(path, content=body.encode("utf-16"))
    assert (answer.status_code, "UTF-16" in answer.text) == (400, True)


def test_no_answer_brings_commands_to_a_terminal(client: Client) -> None:
    rubbish = "\x1b[2J\x9b31m\u202e"
    answers = [
        client.post("/v1/predict", {**EXAMPLE, "room_type": rubbish, f"made{rubbish}up": rubbish}),
        client.post("/v1/predict", {**EXAMPLE, "neighbourhood": rubbish}),
        client.post("/v1/predict/batch", {"listings": [{**EXAMPLE, f"made{rubbish}up": 1}]}),
        client.post(INFER, {"inputs": [tensor("neighbourhood", [rubbish]), {**tensor("id", [1]), "name": rubbish}]}),
        client.arrow(stream(pa.Table.from_pylist([{**EXAMPLE, f"made{rubbish}up": 1}]))),
    ]

    for answer in answers:
        assert answer.text.isprintable(), ascii(answer.text)
        assert "1b[2J" in answer.text


SHOP = "https://shop.example"


def preflight(client: Client, path: str, origin: str = SHOP) -> httpx.Response:
    headers = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    return client.request("OPTIONS", path, headers=headers)


def allowed_origin(answer: httpx.Response) -> Any:
    return answer.headers.get("access-control-allow-origin")


def test_pages_of_other_origins_may_call_if_they_are_named(make_client: Callable[..., Client]) -> None:
    client = make_client(cors_origins=f"{SHOP}, https://other.example:8443", api_keys=KEY)

    for path, method in (("/v1/predict", "POST"), ("/v1/model", "GET"), (INFER, "POST"), ("/readyz", "GET")):
        asked = preflight(client, path)
        assert (asked.status_code, asked.content, allowed_origin(asked)) == (204, b"", SHOP)
        assert asked.headers["access-control-allow-methods"] == method
        assert "x-api-key" in asked.headers["access-control-allow-headers"]
        assert allowed_origin(preflight(client, path, "https://evil.example")) is None
    answers = [client.post("/v1/predict", EXAMPLE, headers={"origin": SHOP, **key}) for key in ({"x-api-key": KEY}, {})]
    assert [(answer.status_code, allowed_origin(answer), answer.headers["vary"]) for answer in answers] == [
        (200, SHOP, "Origin"),
        (401, SHOP, "Origin"),
    ]
    assert allowed_origin(client.get("/nowhere", headers={"origin": SHOP})) == SHOP
    assert preflight(client, "/nowhere").status_code == 404


def test_every_origin_may_call_if_all_are_named(make_client: Callable[..., Client]) -> None:
    assert allowed_origin(preflight(make_client(cors_origins="*"), "/v1/predict")) == "*"


def test_no_other_origin_may_call_by_default(client: Client) -> None:
    assert preflight(client, "/v1/predict").status_code == 405
    answer = client.post("/v1/predict", EXAMPLE, headers={"origin": SHOP})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_too_much_large_work_is_refused_while_single_rows_are_answered(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, end = threading.Event(), threading.Event()

    def explain(*_: Any) -> dict[str, Any]:
        began.set()
        assert end.wait(20)
        return {}

    monkeypatch.setattr("serve_app.model.predictor.Predictor.explain", explain)
    narrow = make_client(max_ongoing_requests=1, max_queued_requests=0)

    with ThreadPoolExecutor(1) as caller:
        first = caller.submit(narrow.post, "/v1/explain", EXAMPLE)
        assert began.wait(20)
        refused = narrow.post("/v1/explain", EXAMPLE)
        assert (refused.status_code, refused.json()["error"]["code"], refused.headers["retry-after"]) == (
            503,
            "overloaded",
            "1",
        )
        assert narrow.post("/v1/predict", EXAMPLE).status_code == 200
        # Large is a long body, and a short one of many rows.
        assert narrow.post("/v1/predict", {**EXAMPLE, "amenities": ["TV"] * 2_000}).status_code == 503
        assert narrow.post("/v1/predict/batch", {"listings": [1] * 2_000}).status_code == 503
        assert narrow.arrow(stream(pa.table({"tv": pa.nulls(50_000)}))).status_code == 503
        end.set()
        assert first.result(20).status_code == 200
    assert narrow.post("/v1/explain", EXAMPLE).status_code == 200


def test_small_requests_that_wait_together_are_answered_up_to_a_number(make_client: Callable[..., Client]) -> None:
    narrow = make_client(max_small_requests=3)
    large = {"listings": [EXAMPLE] * 50}
    bodies = [("/v1/predict", EXAMPLE)] * 5 + [
        ("/v1/predict/batch", {"listings": [EXAMPLE]}),
        ("/v1/predict/batch", large),
    ]

    answers = narrow.post_at_once(bodies)

    assert [answer.status_code for answer in answers] == [200, 200, 200, 503, 503, 503, 200]
    assert (answers[3].json()["error"]["code"], answers[3].headers["retry-after"]) == ("overloaded", "1")
    assert [answer.status_code for answer in narrow.post_at_once(bodies[:3])] == [200, 200, 200]


def test_unknown_paths_and_methods(client: Client) -> None:
    assert client.get("/v1/nothing").status_code == 404
    wrong = client.get("/v1/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_fault_of_ours_tells_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret path /srv/models")

    monkeypatch.setattr("serve_app.model.predictor.Predictor.predict", fail)

    answer = client.post("/v1/predict", EXAMPLE, headers={"x-request-id": "me-2"})

    assert (answer.status_code, answer.json()["error"]["request_id"]) == (500, "me-2")
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert vars(record)["request"] == "me-2"


def test_fields_of_a_request_are_in_no_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    client.post("/v1/predict", {**EXAMPLE, "room_type": "Castle in the air"})

    assert "Castle in the air" not in caplog.text


def test_the_document_is_true_to_the_contract(client: Client) -> None:
    document = client.get("/openapi.json").json()
    example = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]

    assert example == EXAMPLE
    schema = document["components"]["schemas"]["Record"]
    jsonschema.validate(EXAMPLE, schema)
    for wrong in (
        {"tv": 2},
        {"room_type": "Flat"},
        {"accommodates": 65},
        {"beds": "2"},
        {"price": 1},
        {"id": 0},
        {"neighbourhood": " "},
    ):
        assert client.post("/v1/predict", {**EXAMPLE, **wrong}).status_code == 422
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**EXAMPLE, **wrong}, schema)


def test_answers_are_as_documented(client: Client) -> None:
    document = client.get("/openapi.json").json()

    def check(name: str, body: Any) -> None:
        jsonschema.validate(body, {"$ref": f"#/components/schemas/{name}", "components": document["components"]})

    check("Prediction", client.post("/v1/predict", EXAMPLE).json())
    check("Explanation", client.post("/v1/explain", EXAMPLE).json())
    check("Results", client.post("/v1/predict/batch", {"listings": [EXAMPLE, 1]}).json())
    check("Error", client.post("/v1/predict", {}).json())
    check("Model", client.get("/v1/model").json())


def test_numbers_keep_their_digits(client: Client) -> None:
    number = 2**63 - 1

    answer = client.post("/v1/predict", {**EXAMPLE, "id": number})

    assert json.loads(answer.content)["id"] == number
