import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from registry.registry import Registry
from serve_app.follow import Follower
from tests.serve_app.client import Client, client_of
from tests.serve_app.models import boosted_artifact


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
    """The application behind a real port, as browsers and clients of others need it."""
    server = uvicorn.Server(uvicorn.Config(client.api, port=0, log_level="error", lifespan="off"))
    started = threading.Event()

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(20)
    yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)
