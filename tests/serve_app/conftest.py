from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.registry import Registry
from serve_app.model.reloader import ModelReloader
from tests.support.serving.client import Client, client_of
from tests.support.serving.models import boosted_artifact
from tests.support.serving.server import served
from transforms.listings import CONTRACT


@pytest.fixture(scope="session")
def boosted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted_artifact(tmp_path_factory.mktemp("boosted") / "model")


@pytest.fixture(scope="session")
def reloader(boosted_folder: Path) -> ModelReloader:
    """A loaded model that stays."""
    reloader = ModelReloader(Registry(str(boosted_folder.parent)), str(boosted_folder), CONTRACT)
    reloader.poll()
    return reloader


@pytest.fixture(scope="session")
def client(reloader: ModelReloader) -> Client:
    return client_of(reloader)


@pytest.fixture
def make_client(reloader: ModelReloader) -> Callable[..., Client]:
    return lambda **options: client_of(reloader, **options)


@pytest.fixture(scope="session")
def address(client: Client) -> Iterator[str]:
    with served(client.api) as port:
        yield f"http://localhost:{port}/"
