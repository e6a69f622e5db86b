"""Nothing that data or headers bring reaches a terminal as a command to it."""

import json

import pytest

from nightprice.errors import NightpriceError, UsageError, missing_column, printable

RUBBISH = "\x1b]0;mine\x07\x1b[2J\r\b\x00\x7f\x9b31m\u202e\u200b\ufdd0\udc80\U000e0001"


def test_what_prints_stays() -> None:
    text = "Zürich, Łódź, 東京 – “$1,234.00”\n\tnext 🏠"

    assert printable(text) == text


@pytest.mark.parametrize("kind", [NightpriceError, UsageError])
def test_no_message_has_anything_else(kind: type[NightpriceError]) -> None:
    message = str(kind(f"a{RUBBISH}z"))

    assert message.isprintable()
    assert (message[0], message[-1]) == ("a", "z")
    assert "\\x1b[2J" in message
    assert str(missing_column("a.csv", ["id"], ["\x1b[2Jid"])).isprintable()


def test_it_is_escaped_once() -> None:
    once = printable(RUBBISH)

    assert str(NightpriceError(f"Because of {NightpriceError(once)}")) == f"Because of {once}"
    assert json.loads(json.dumps(once)) == once
