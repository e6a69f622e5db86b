import pytest

from tests.support.paths import ROOT
from tools.contract_page import contract_page
from transforms.contract import Field
from transforms.listings import CONTRACT

PAGE = ROOT / "docs" / "data-contract.md"


def test_committed_page_is_what_the_contract_prints() -> None:
    assert PAGE.read_text("utf-8") == contract_page(CONTRACT), (
        "Run: python -m tools.contract_page > docs/data-contract.md"
    )


@pytest.mark.parametrize("item", CONTRACT.fields, ids=lambda item: item.name)
def test_every_field_has_its_row(item: Field) -> None:
    row = next(line for line in contract_page(CONTRACT).splitlines() if line.startswith(f"| `{item.name}` |"))

    assert all(f"`{column}`" in row for column in item.columns)
    assert item.description in row
    assert row.count("|") == 7
