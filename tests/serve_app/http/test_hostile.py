"""The requests of `make attack`, in process and short: whatever is sent, no answer is a fault of ours."""

import pytest

from benchmarks.hostile import HostileRequest, attacks, mutated
from tests.support.serving.client import Client

SIZE = 1 / 64


@pytest.mark.parametrize("request_", attacks(SIZE), ids=lambda request: f"{request.name} {request.path}")
def test_attacks_are_answered(client: Client, request_: HostileRequest) -> None:
    answer = client.post(request_.path, content=request_.body, headers=dict(request_.headers))

    assert answer.status_code < 500, answer.text
    assert len(answer.content) < 4 * 2**20


def test_mutated_requests_are_answered(client: Client) -> None:
    statuses = set()
    for request in map(mutated, range(300)):
        answer = client.post(request.path, content=request.body, headers=dict(request.headers))
        assert answer.status_code < 500, (request.name, answer.text)
        statuses.add(answer.status_code)

    # They reach the work itself as well as the refusals.
    assert {200, 400, 422} <= statuses


def test_a_mutated_request_follows_from_its_seed() -> None:
    assert [mutated(seed) for seed in range(20)] == [mutated(seed) for seed in range(20)]
