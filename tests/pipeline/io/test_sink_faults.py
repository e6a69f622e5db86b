"""A bucket that lets one do some things and not others."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from nightprice.address import parse_address
from nightprice.errors import UsageError
from pipeline.datasets import open_dataset
from pipeline.io import StoreError
from pipeline.io.files import write as write_module
from pipeline.io.files.locate import check_apart, filesystem_of
from pipeline.process import process
from pipeline.settings import Settings
from tests.support.http_server import answering
from tests.support.raw_listings import listing, table_of, write_csv
from tests.support.s3_server import Bucket
from tests.support.stores import rows_at
from transforms.listings import CONTRACT


def test_no_rights_to_write_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda request: request.send_error(403)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        filesystem, folder = filesystem_of(parse_address("s3://bucket/dataset"))
        with pytest.raises(
            StoreError, match=r'"bucket/dataset" cannot be written: .*Check the address and your rights to it\.'
        ):
            write_module._write_table(filesystem, folder, "accepted", table_of([listing(1)]), "0")


def test_old_versions_that_cannot_be_removed_are_a_warning_and_the_run_is_published(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("AccessDenied")

    monkeypatch.setattr(write_module, "_prune", refuse)
    write_csv(tmp_path / "raw.csv", [listing(1)])

    with caplog.at_level(logging.WARNING):
        manifest = process(str(tmp_path / "raw.csv"), str(tmp_path / "dataset"), Settings())

    assert json.loads((tmp_path / "dataset" / "manifest.json").read_text())["version"] == manifest["version"]
    assert "Published, but old versions could not be removed: AccessDenied." in caplog.text


def test_a_dataset_at_an_address_with_a_query_is_read_as_it_was_written(
    ray_session: None, tmp_path: Path, s3: Bucket
) -> None:
    write_csv(tmp_path / "raw.csv", [listing(1), listing(2, price="free")])
    uri = f"{s3.uri}/dataset?region=us-east-1"
    for _ in range(2):
        process(str(tmp_path / "raw.csv"), uri, Settings(max_rejected=0.6))

    assert open_dataset(uri, CONTRACT).rows(("id",)).count() == 1
    with pytest.raises(UsageError, match="lies in the source"):
        check_apart(
            parse_address(f"{s3.uri}/raw?region=us-east-1"), parse_address(f"{s3.uri}/raw/dataset?region=us-east-1")
        )


@pytest.mark.parametrize(
    "uri", ["mysql://ann:s3cr3t@host/x", "s3://KEY:s3cr3t@no bucket/x", "s3://KEY:s3cr3t@bucket/x?no=option"]
)
def test_an_error_names_an_address_without_its_secret(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        rows_at(uri, CONTRACT.choose_columns)

    assert "s3cr3t" not in str(caught.value)
