"""The machinery knows no problem: what is said of listings stands in transforms/listings alone."""

import re
from collections.abc import Iterator

import pytest

from nightprice.defaults import DEFAULT_CONTRACT, DEFAULT_CONTRACT_NAME
from tests.support.paths import ROOT
from transforms.listings import CONTRACT

MACHINERY = ("nightprice", "pipeline", "registry", "serve_app")
TEXTS = ("*.py", "*.html", "*.js", "*.css", "*.json")
# Words of the problem, and every name of a field or raw column that is not also a word of the machinery.
COMMON = {"id", "source_file"}
NAMES = sorted({*CONTRACT.by_name, *CONTRACT.raw_columns, CONTRACT.label_name} - COMMON)
WORDS = ("listings?", "amenit(y|ies)", "prices?", "airbnb", "boroughs?", "neighbou?rhoods?")
FORBIDDEN = re.compile(rf"\b({'|'.join([*WORDS, *map(re.escape, NAMES)])})\b", re.IGNORECASE)


def lines(package: str) -> Iterator[tuple[str, str]]:
    for pattern in TEXTS:
        for path in sorted((ROOT / package).rglob(pattern)):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("package", MACHINERY)
def test_no_word_of_a_problem(package: str) -> None:
    """But for the default contract, by where it is and by its name."""
    module = DEFAULT_CONTRACT.partition(":")[0]
    allowed = re.compile(f"{re.escape(module)}|{re.escape(DEFAULT_CONTRACT_NAME)}")
    found = [(place, line.strip()) for place, line in lines(package) if FORBIDDEN.search(allowed.sub("", line))]

    assert list(lines(package))
    assert found == []


@pytest.mark.parametrize("word", ["the price of", "room_type", "Listings", "amenities"])
def test_the_search_finds_words(word: str) -> None:
    assert FORBIDDEN.search(word)
    assert not FORBIDDEN.search("nightprice.errors: latitudes")
