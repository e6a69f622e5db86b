"""Rules that many fields share: plain functions that read ONE raw text.

Each takes a text that is not blank and returns a value, or raises ValueError if the text can't be read. A rule knows
nothing of tables: `transforms.lift` applies the same function to columns.
"""

import ast
import json
import math
import re


def text(raw: str) -> str:
    """Trimmed text.

    >>> text(" Brooklyn ")
    'Brooklyn'
    """
    return raw.strip()


_INTEGER = re.compile(r"([+-]?[0-9]+)(\.0*)?", re.ASCII)
# From here on a float may have lost the last digits of a whole number.
FIRST_INEXACT_INTEGER = 2**53


def integer(raw: str) -> int:
    """A whole number, read digit by digit: ids exceed 2**53, where floats lose the last digits.

    A fraction of zeros is accepted, as spreadsheets write it, but only below 2**53.

    >>> integer("1009876543210987654"), integer("4.0")
    (1009876543210987654, 4)
    """
    if raw.isdecimal() and raw.isascii():
        return int(raw)
    match = _INTEGER.fullmatch(raw.strip())
    if match is None:
        lost = ": a power of ten has lost its last digits. Export the column as text" if "e+" in raw.lower() else ""
        raise ValueError(f"{raw!r} is not a whole number{lost}")
    value = int(match[1])
    if match[2] and abs(value) >= FIRST_INEXACT_INTEGER:
        raise ValueError(f"{raw!r} was a float, which may have lost its last digits. Export the column as text")
    return value


def number(raw: str) -> float:
    """A finite decimal number.

    >>> number("40.68494")
    40.68494
    """
    try:
        value = float(raw)
    except ValueError:
        raise ValueError(f"{raw!r} is not a number") from None
    if not math.isfinite(value) or "_" in raw:
        raise ValueError(f"{raw!r} is not a finite number")
    return value


# ISO 4217's codes, and how people write their own currencies; other letters are units, magnitudes or words.
_CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD "
    "HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD "
    "LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP "
    "PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND "
    "TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW R S/ NT RM"
)
_WORDS = (
    "usd eur gbp chf sek nok dkk pln czk huf inr jpy cny rmb kr kč kc zł zl ft lei лв руб "
    "р грн дин din rs nrs rp tl fr sfr dh dhs ksh tsh ush tk php nis sr qr kd jd le yen 円 "
    "元 원 đ ლ"
)
_NAMES = "|".join(re.escape(name) for name in _CODES.split()) + f"|(?i:{'|'.join(_WORDS.split())})"
_SIGNS = "[$¢£¤¥؋৳฿៛\u20a0-\u20c0﷼＄￡￥￦]"
_BEFORE = rf"(?:[A-Z]{{0,2}}{_SIGNS}|(?:{_NAMES})\.?)"
_BEHIND = rf"(?:{_SIGNS}|(?:{_NAMES})\.?)"
_AMOUNT = re.compile(rf"(-?)\s*(?:{_BEFORE}\s*)?(-?)([0-9](?:[0-9.,'’\s]*[0-9])?)(?:\s*{_BEHIND})?")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_DIGIT_GROUPS = re.compile(r"[0-9]{1,3}(?:[,.][0-9]{3})*|[0-9]+")


def amount(raw: str) -> float:
    """A printed amount of money, whatever its currency; a number of another unit is none.

    The last of "." and "," is the decimal mark when both occur; alone, a comma before exactly three
    digits separates thousands, and so does a mark that repeats.

    >>> amount("$1,234.00"), amount("1.234,50 €"), amount("HK$404"), amount("75")
    (1234.0, 1234.5, 404.0, 75.0)
    """
    match = _AMOUNT.fullmatch(raw.strip())
    if match is None:
        raise ValueError(f"{raw!r} is not an amount")
    digits = re.sub(r"['’\s]", "", match[3])
    if _THOUSANDS.fullmatch(digits):
        whole, fraction = digits, ""
    else:
        whole, mark, fraction = digits.rpartition("," if digits.rfind(",") > digits.rfind(".") else ".")
        whole, fraction = (whole, fraction) if mark else (fraction, "")
    if not _DIGIT_GROUPS.fullmatch(whole):
        raise ValueError(f"{raw!r} is not an amount: its digit groups do not add up")
    value = float(re.sub(r"[.,]", "", whole) + "." + (fraction or "0"))
    if not math.isfinite(value):
        raise ValueError(f"{raw[:60]!r} is not an amount: it has too many digits")
    return -value if match[1] or match[2] else value


# Quoted texts between brackets, as Python prints lists, tuples and sets; numpy leaves out the commas.
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_PRINTED_LIST = re.compile(
    rf"(?:\[|\(|\{{)\s*(?:{_QUOTED})(?:(?:\s*,\s*|\s+)(?:{_QUOTED}))*\s*,?\s*(?:\]|\)|\}})", re.DOTALL
)
# PostgreSQL quotes every item that holds a blank.
_ARRAY_ITEM = r"""\"(?:[^"\\]|\\.)*"|[^\s,"\\{}]+"""
_ARRAY = re.compile(rf"\{{\s*(?:(?:{_ARRAY_ITEM})(?:\s*,\s*(?:{_ARRAY_ITEM}))*)?\s*\}}", re.DOTALL)
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def list_of_texts(raw: str) -> list[str]:
    r"""The items of a list of texts, as JSON, PostgreSQL or Python print it: for a `ListColumn`.

    >>> list_of_texts('["TV", "Fast wifi \\u2013 100 Mbps"]')
    ['TV', 'Fast wifi – 100 Mbps']
    >>> list_of_texts('{TV,"Cable TV"}'), list_of_texts("['TV', \"Chef's kitchen\"]"), list_of_texts("{}")
    (['TV', 'Cable TV'], ['TV', "Chef's kitchen"], [])
    """
    try:
        items = json.loads(raw)
    except RecursionError:
        raise ValueError("the list is nested too deeply") from None
    except ValueError:
        items = _printed_list(raw.strip())
    if items == {}:
        return []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{raw[:60]!r} is not a list of texts")
    return items


def _printed_list(raw: str) -> list[str]:
    if _PRINTED_LIST.fullmatch(raw) and raw.endswith(_CLOSING[raw[0]]):
        return [_unquoted(item) for item in re.findall(_QUOTED, raw, re.DOTALL)]
    if _ARRAY.fullmatch(raw):
        return [_unquoted(item) for item in re.findall(_ARRAY_ITEM, raw[1:-1], re.DOTALL)]
    raise ValueError(f"{raw[:60]!r} is not a list of texts")


def _unquoted(item: str) -> str:
    """An item without its quotes: each escape as JSON or Python reads it, else as the character behind it."""
    if item[0] not in "\"'":
        return item
    try:
        return str(json.loads(item) if item[0] == '"' else ast.literal_eval(item))
    except (ValueError, SyntaxError):
        return re.sub(r"\\(.)", r"\1", item[1:-1], flags=re.DOTALL)
