"""An Iceberg catalog for the tests: SQLite and a folder, configured as a user would, by variables.

pyiceberg reads them when it is imported, so they are set when pytest starts.
"""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest

CATALOG = "tests"
_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(tempfile.mkdtemp(prefix="nightprice-iceberg-"))
    config.stash[_FOLDER] = folder
    prefix = f"PYICEBERG_CATALOG__{CATALOG.upper()}__"
    os.environ |= {f"{prefix}URI": f"sqlite:///{folder}/catalog.db", f"{prefix}WAREHOUSE": f"file://{folder}"}


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_FOLDER])


@pytest.fixture
def iceberg_namespace() -> str:
    """A new, empty namespace of the catalog."""
    from pyiceberg.catalog import load_catalog

    namespace = f"n{uuid.uuid4().hex[:12]}"
    load_catalog(CATALOG).create_namespace(namespace)
    return namespace
