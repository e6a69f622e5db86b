"""The same work by others: the notebook's pandas as it was, and Polars with the rules of `transforms`."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from nightprice.defaults import DEFAULT_MISSING_VALUES
from transforms.contract import Bands
from transforms.listings import CONTRACT, ROOM_TYPES
from transforms.listings.amenities import AMENITIES

# ---- the notebook ----

_KEPT = [
    "id",
    "neighbourhood",
    "property_type",
    "room_type",
    "latitude",
    "longitude",
    "accommodates",
    "bathrooms",
    "bedrooms",
    "beds",
]
_FLAGS = {
    "TV": "TV",
    "Internet": "Internet",
    "Air_conditioning": "Air conditioning",
    "Kitchen": "Kitchen",
    "Heating": "Heating",
    "Wifi": "Wifi",
    "Elevator": "Elevator",
    "Breakfast": "Breakfast",
}


def notebook(source: Path, out: Path) -> int:
    """The first notebook's cells; returns the rows that it kept.

    Two changes only: it reads our Parquet shards (its CSV would be slower), and it takes the neighbourhood of cities
    without boroughs, since with the borough column it would drop all their rows at once.
    """
    columns = [
        *_KEPT[:1],
        "neighbourhood_cleansed",
        *_KEPT[2:7],
        "bathrooms_text",
        "bedrooms",
        "beds",
        "amenities",
        "price",
    ]
    raw = pd.read_parquet(source, columns=columns)

    def num_bathroom_from_text(text: object) -> float:
        try:
            if isinstance(text, str):
                return float(text.split(" ")[0])
            return np.nan
        except ValueError:
            return np.nan

    raw["bathrooms"] = raw["bathrooms_text"].apply(num_bathroom_from_text)
    df = raw.rename(columns={"neighbourhood_cleansed": "neighbourhood"})[[*_KEPT, "amenities", "price"]].copy()
    df = df.dropna(axis=0)
    df["price"] = df["price"].str.extract(r"(\d+).", expand=False).astype(int)
    df = df[df["price"] >= 10].copy()
    df["category"] = pd.cut(df["price"], bins=[10, 90, 180, 400, np.inf], labels=[0, 1, 2, 3])
    for name, text in _FLAGS.items():
        df[name] = df["amenities"].str.contains(text).astype(int)
    df = df.drop(columns="amenities")
    df.to_csv(out / "listings.csv")
    return len(df)


# ---- Polars ----


def polars(source: Path, out: Path, label: Bands) -> tuple[int, int]:
    """`process` in Polars: streaming, both parts to Parquet in one pass; returns the rows accepted and rejected."""
    raw = pl.scan_parquet(source / "*.parquet").select(CONTRACT.raw_columns)
    # As `lift` does: the slow reading of prices once per distinct text.
    prices = raw.select("price").unique().with_columns(_price(_text("price")).alias("=price"))
    values = raw.join(prices, on="price", how="left", nulls_equal=True).with_columns(**_read_columns())
    problems = _problems(label)
    marked = values.with_columns(is_bad=pl.any_horizontal(*problems.values()).fill_null(False))
    accepted = marked.filter(~pl.col("is_bad")).select(_accepted_columns(label))
    # The lists of reasons are built for the few bad rows alone.
    reasons = pl.concat_list([pl.when(bad).then(pl.lit(reason)) for reason, bad in problems.items()]).list.drop_nulls()
    rejected = marked.filter("is_bad").select(*CONTRACT.raw_columns, reasons=reasons)
    sinks = [
        accepted.sink_parquet(out / "accepted.parquet", lazy=True),
        rejected.sink_parquet(out / "rejected.parquet", lazy=True),
    ]
    pl.collect_all(sinks, engine="streaming")
    accepted_rows, rejected_rows = (
        pl.scan_parquet(out / f"{part}.parquet").select(pl.len()).collect().item() for part in ("accepted", "rejected")
    )
    return accepted_rows, rejected_rows


def _read_columns() -> dict[str, pl.Expr]:
    """Every value but the price as the contract reads it, null where it can't; named with a leading "=" beside the
    raw texts.
    """
    return {
        "=id": _integer(_text("id"), pl.Int64),
        "=neighbourhood": pl.coalesce(_text("neighbourhood_group_cleansed"), _text("neighbourhood_cleansed")),
        "=room_type": _text("room_type"),
        "=property_type": _text("property_type"),
        "=accommodates": _integer(_text("accommodates"), pl.Int64),
        "=bathrooms": _bathrooms(pl.coalesce(_text("bathrooms_text"), _text("bathrooms"))),
        **{f"={name}": _number(_text(name)) for name in ("bedrooms", "beds", "latitude", "longitude")},
        **{f"={name}": _amenity(pattern) for name, pattern in AMENITIES.items()},
    }


def _text(name: str) -> pl.Expr:
    """A raw text, trimmed; null if it is blank or a word for nothing."""
    trimmed = pl.col(name).str.strip_chars()
    is_word = trimmed.str.to_lowercase().is_in([word.lower() for word in DEFAULT_MISSING_VALUES])
    return pl.when((trimmed != "") & ~is_word).then(trimmed)


def _integer(text: pl.Expr, kind: type[pl.DataType]) -> pl.Expr:
    return text.str.extract(r"^([+-]?[0-9]+)(?:\.0*)?$").cast(kind, strict=False)


def _number(text: pl.Expr) -> pl.Expr:
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _bathrooms(text: pl.Expr) -> pl.Expr:
    number = text.str.extract(r"(?i)^([0-9]+(?:\.[0-9]+)?)(?: +(?:shared +|private +)?baths?)?$").cast(pl.Float32)
    return (
        pl.when(text.str.contains(r"(?i)^(?:shared |private )?half-bath$"))
        .then(pl.lit(0.5, pl.Float32))
        .otherwise(number)
    )


_CURRENCY = r"(?:\p{L}{1,3}\.?|[^\w\s.,'’+-]|\p{L}{1,2}[^\w\s.,'’+-])"
_PRICE = rf"^(-?)\s*(?:{_CURRENCY}\s*)?(-?)([0-9](?:[0-9.,'’\s]*[0-9])?)(?:\s*{_CURRENCY})?$"


def _price(text: pl.Expr) -> pl.Expr:
    """As `transforms.readers.amount`: the last of "." and "," is the decimal mark unless all marks separate
    thousands.
    """
    digits = text.str.extract(_PRICE, 3).str.replace_all(r"['’\s]", "")
    is_thousands = digits.str.contains(r"^(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,})$")
    has_fraction = ~is_thousands & digits.str.contains(r"[.,]")
    whole = pl.when(has_fraction).then(digits.str.extract(r"^(.*)[.,]")).otherwise(digits)
    fraction = pl.when(has_fraction).then(digits.str.extract(r"[.,]([0-9]*)$")).otherwise(pl.lit("0"))
    adds_up = whole.str.contains(r"^(?:[0-9]{1,3}(?:[,.][0-9]{3})*|[0-9]+)$")
    amount = (whole.str.replace_all(r"[.,]", "") + "." + fraction).cast(pl.Float64, strict=False)
    is_negative = text.str.contains(r"^[^0-9]*-")
    return pl.when(adds_up).then(pl.when(is_negative).then(-amount).otherwise(amount))


def _amenity(pattern: str) -> pl.Expr:
    """Whether a whole item matches, in one search over the printed list: quicker than to split or decode 40 items a
    row.

    Between items stand `", "`; a quote within an item has a backslash before it.
    """
    inside = pattern.replace("(", "(?:").replace(".*", r'(?:[^"\\]|\\.)*')
    return pl.col("amenities").str.contains(rf'(?i)[\[ ]" *(?:{inside}) *"[,\]]').fill_null(False)


def _problems(label: Bands) -> dict[str, pl.Expr]:
    """By reason, which rows are rejected."""
    required = {
        "id": "id",
        "room_type": "room_type",
        "accommodates": "accommodates",
        "latitude": "latitude",
        "longitude": "longitude",
        "price": "price",
    }
    neighbourhood = pl.col("=neighbourhood").is_null()
    problems = {"neighbourhood:missing": neighbourhood}
    for name, raw in required.items():
        is_blank = _text(raw).is_null()
        problems[f"{name}:missing"] = is_blank
        problems[f"{name}:unparseable"] = ~is_blank & pl.col(f"={name}").is_null()
    problems["room_type:not_allowed"] = ~pl.col("=room_type").is_in(ROOM_TYPES)
    for name in ("id", "accommodates", "bathrooms", "bedrooms", "beds", "latitude", "longitude"):
        limits = CONTRACT.by_name[name]
        problems[f"{name}:out_of_range"] = ~pl.col(f"={name}").is_between(limits.low, limits.high)
    problems["price:below_minimum"] = pl.col("=price") < label.minimum
    return problems


def _accepted_columns(label: Bands) -> list[pl.Expr]:
    types = {"accommodates": pl.Int16, "bedrooms": pl.Float32, "beds": pl.Float32}
    columns = [
        pl.col(f"={name}").cast(types[name]).alias(name) if name in types else pl.col(f"={name}").alias(name)
        for name in CONTRACT.by_name
    ]
    category: pl.Expr = pl.lit(label.labels[-1])
    for bound, name in reversed(list(zip(label.bins, label.labels, strict=False))):
        category = pl.when(pl.col("=price") <= bound).then(pl.lit(name)).otherwise(category)
    return [*columns, category.alias("price_category")]
