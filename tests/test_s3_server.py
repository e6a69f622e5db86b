"""The S3 of the tests is found by every client that the project uses, and decides conditional writes atomically."""

from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import from_url
from pyarrow.fs import S3FileSystem

from tests.support.s3_server import Bucket


def test_obstore_and_pyarrow_see_the_same_objects(s3: Bucket) -> None:
    obstore.put(from_url(s3.uri), "folder/file", b"hello")
    filesystem, path = S3FileSystem.from_uri(f"{s3.uri}/folder/file")
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"hello"


def test_each_test_has_a_bucket_of_its_own(s3: Bucket) -> None:
    assert [page for page in obstore.list(from_url(s3.uri)) if page] == []


@pytest.mark.parametrize("round_", range(5))
def test_of_many_writers_that_create_one_object_one_wins(s3: Bucket, round_: int) -> None:
    store = from_url(s3.uri)

    def create(writer: int) -> bool:
        try:
            obstore.put(store, "once", str(writer).encode(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
