"""The repository, and the folder of real listings, where there is one."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A folder that does not exist, unless the variable names one.
TEST_DATA = Path(os.environ.get("NIGHTPRICE_TEST_DATA", ROOT / "no-test-data"))
needs_test_data = pytest.mark.skipif(
    "NIGHTPRICE_TEST_DATA" not in os.environ, reason="NIGHTPRICE_TEST_DATA names no folder of real listings"
)
