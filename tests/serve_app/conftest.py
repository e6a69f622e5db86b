from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.registry import Registry
from serve_app.model.reloader import Follower
from tests.support.serving.client import Client, client_of
from tests.support.serving.models import boosted_artifact
from tests.support.serving.server import served


@pytest.fixture(scope="session")
def boosted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted_artifact(tmp_path_factory.mktemp("boosted") / "model")


@pytest.fixture(scope="session")
def follower(boosted_folder: Path) -> Follower:
    """A loaded model that stays."""
    follower = Follower(Registry(str(boosted_folder.parent)), str(boosted_folder))
    follower.poll()
    return follower


@pytest.fixture(scope="session")
def client(follower: Follower) -> Client:
    return client_of(follower)


@pytest.fixture
def make_client(follower: Follower) -> Callable[..., Client]:
    return lambda **options: client_of(follower, **options)


@pytest.fixture(scope="session")
def address(client: Client) -> Iterator[str]:
    with served(client.api) as port:
        yield f"http://localhost:{port}/"
