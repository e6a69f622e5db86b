"""Options: where they come from, and that keys stay where they are."""

import pytest

from nightprice.errors import NightpriceError, UsageError
from serve_app.deployment.run import check_cpus
from serve_app.http.keys import Keys
from serve_app.options import ServeOptions, load_options

KEY = "a-key-of-some-length"


def test_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SERVE_PORT", "9001")
    monkeypatch.setenv("NIGHTPRICE_SERVE_POLL_SECONDS", "2")

    options = load_options(port=9002, host=None)

    assert (options.port, options.poll_seconds, options.host) == (9002, 2.0, "127.0.0.1")


def test_keys_never_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SERVE_API_KEYS", f" {KEY} , another-key-of-a-caller,")

    options = load_options()

    assert len(options.api_keys) == 2
    assert KEY not in f"{options!r} {options} {options.arguments()}"
    assert options.arguments()["keys_required"] is True
    Keys(options.api_keys).check([(b"x-api-key", KEY.encode())])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prot": 1}, 'Did you mean "port"?'),
        ({"port": 0}, "port"),
        ({"min_replicas": 3, "max_replicas": 2}, "less than min_replicas"),
        ({"api_keys": "short"}, "shorter than 16"),
        ({"cors_origins": "https://shop.example/page"}, "cors_origins can't be 'https://shop.example/page'"),
        ({"metrics_host": "10.0.0.1"}, "metrics_host can't be '10.0.0.1'"),
        ({"api_keys": 5}, "api_keys can't be what it is"),
    ],
)
def test_what_cannot_be_is_one_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")) as caught:
        load_options(**given)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_variable_with_a_typing_error_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTPRICE_SERVE_API_KEY", KEY)

    with pytest.raises(
        UsageError, match=r'NIGHTPRICE_SERVE_API_KEY\. Did you mean "NIGHTPRICE_SERVE_API_KEYS"'
    ) as caught:
        load_options()

    assert KEY not in str(caught.value)


def test_the_contract_is_the_pipelines_variable_and_travels_to_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServeOptions().arguments()["model"] == "listing-price@champion"

    monkeypatch.setenv("NIGHTPRICE_CONTRACT", "mine:CONTRACT")

    assert load_options(model="mine@champion").arguments()["contract"] == "mine:CONTRACT"
    assert load_options(contract="other:CONTRACT").contract == "other:CONTRACT"
    monkeypatch.setenv("NIGHTPRICE_SERVE_CONTRACT", "mine:CONTRACT")
    with pytest.raises(UsageError, match="NIGHTPRICE_SERVE_CONTRACT"):
        load_options()


def test_relative_paths_mean_the_same_everywhere() -> None:
    assert ServeOptions(model="my-model").arguments()["model"].endswith("/my-model")
    assert ServeOptions(model="/srv/models@prod/v1").arguments()["model"] == "/srv/models@prod/v1"
    assert ServeOptions(model="listing-price@champion").arguments()["model"] == "listing-price@champion"
    assert ServeOptions(registry="models").arguments()["registry"].startswith("/")
    assert ServeOptions(registry="s3://bucket/models").arguments()["registry"] == "s3://bucket/models"
    arguments = ServeOptions().arguments()
    assert ServeOptions(**arguments).arguments() == arguments


def test_replicas_that_would_wait_for_ever_are_refused() -> None:
    check_cpus(load_options(min_replicas=2, max_replicas=2), 2)

    with pytest.raises(NightpriceError, match=r"2 replicas of 1\.5 CPUs need 3, Ray has 2"):
        check_cpus(load_options(min_replicas=2, max_replicas=2, num_cpus=1.5), 2)
