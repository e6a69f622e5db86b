"""The report of a model: is it whole, safe, free of outside addresses, and does it show every number."""

import copy
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from nightprice.errors import printable
from pipeline.evaluation.report import charts, render_report

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}
BLOCKS = {"p", "h1", "h2", "h3", "th", "td", "dt", "dd", "caption", "summary", "text", "title", "small"}
LABELS = ["Low", "Mid", "High", "Lux"]


class Page(HTMLParser):
    """The elements, texts and attributes of a page; fails on a tag that is left open or closed twice."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.style = ""
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.texts.append(" " if tag in BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What a reader sees; text that may break within a word is one word."""
        return re.sub(r"\s+", " ", "".join(self.texts))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def model() -> dict[str, Any]:
    """The manifest of a model, as training writes it."""
    metrics = {
        "accuracy": 0.7096,
        "macro_f1": 0.6528,
        "roc_auc": 0.8882,
        "log_loss": 0.6945,
        "ordinal_mae": 0.3085,
        "ece": 0.0209,
    }
    metrics["majority_accuracy"] = 0.4099
    return {
        "format": 1,
        "name": "listing-price",
        "version": "20261123T134500Z-1a2b3c",
        "created": "2026-11-23T13:45:00+00:00",
        "estimator": "xgboost",
        "features": ["neighbourhood", "room_type"],
        "vocabulary": {
            "neighbourhood": {"Bronx": 1, "Brooklyn": 2},
            "property_type": {},
            "room_type": {"Private room": 2},
        },
        "label": {"kind": "bands", "bins": [90, 180, 400], "labels": LABELS, "minimum": 10},
        "labels": LABELS,
        "contract_version": 1,
        "metrics": metrics,
        "evaluation": {
            "rows": 4774,
            "unscorable": {"neighbourhood:unknown": 17},
            "labels": LABELS,
            "metrics": metrics,
            "confusion": [[1648, 292, 14, 1], [259, 1088, 261, 3], [41, 354, 554, 42], [6, 15, 99, 97]],
            "per_class": {
                label: {
                    "precision": 0.611 + i / 100,
                    "recall": 0.522 + i / 100,
                    "f1": 0.433 + i / 100,
                    "support": support,
                }
                for i, (label, support) in enumerate(zip(LABELS, (1955, 1611, 991, 217), strict=True))
            },
            "calibration": [
                {"lower": 0.0, "upper": 0.5, "confidence": None, "accuracy": None, "rows": 0},
                {"lower": 0.5, "upper": 0.75, "confidence": 0.634, "accuracy": 0.612, "rows": 3217},
                {"lower": 0.75, "upper": 1.0, "confidence": 0.881, "accuracy": 0.893, "rows": 1557},
            ],
            "segments": {
                "neighbourhood": [
                    {"value": "Brooklyn", "rows": 4745, "accuracy": 0.717},
                    {"value": "Bronx", "rows": 29, "accuracy": 0.786},
                ],
                "room_type": [{"value": "Private room", "rows": 4774, "accuracy": 0.818}],
            },
            "majority": {"label": "Low", "accuracy": 0.4099, "macro_f1": 0.1453},
        },
        "comparison": [
            {
                "name": "the baseline",
                "ref": "listing-price@20261120T090000Z-9c8b7a",
                "estimator": "random_forest",
                "rows": 4774,
                "metrics": {"accuracy": 0.6033, "macro_f1": 0.5361, "roc_auc": 0.8173, "ordinal_mae": 0.4471},
            }
        ],
        "importance": {"neighbourhood": 0.327, "room_type": 0.673},
        "dataset": {"uri": "s3://listings/nyc", "version": "20261123T130000Z-9f8e7d", "rows": 31841},
        "split": {"holdout_share": 0.15},
        "settings": {"seed": 42, "xgboost": {"max_depth": 7}},
        "code_version": "0.1.0+abc",
        "libraries": {"ray": "2.60.0"},
        "sha256": {"model.onnx": "0123abcd"},
    }


def dataset() -> dict[str, Any]:
    """The manifest of its dataset, as processing writes it."""
    return {
        "version": "20261123T130000Z-9f8e7d",
        "rows": {"read": 32296, "accepted": 31841, "rejected": 455},
        "reasons": {"price:missing": 412, "room_type:not_allowed": 43},
        "warnings": {"bathrooms:unparseable": 57},
        "sources": [
            {"path": "s3://listings/raw/nyc.parquet", "size": 12_345_678, "modified": "2021-12-09T08:00:00+00:00"},
            {"path": "postgresql://db"},
        ],
        "contract_version": 1,
        "label": {"kind": "bands", "bins": [90, 180, 400], "labels": LABELS, "minimum": 10},
        "settings": {"max_rejected": 0.2},
        "code_version": "0.1.0+abc",
        "libraries": {"pyarrow": "21.0.0"},
        "started": "2026-11-23T13:00:00+00:00",
        "finished": "2026-11-23T13:00:09+00:00",
        "ray_job_id": "02000000",
    }


def test_page_is_whole_and_its_pictures_are_named() -> None:
    page = Page(render_report(model(), dataset()))

    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == 1
    assert len(page.named("h2")) == 9
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in page.named("svg"))
    assert len(page.named("table")) == len(page.named("caption"))


def test_page_begins_with_what_the_model_is_worth() -> None:
    text = Page(render_report(model(), dataset())).text

    assert "listing-price@20261123T134500Z-1a2b3c" in text
    assert (
        "Right for 71.0% (± 0.7, one standard error) of 4,774 held-out rows, against 60.3% (the baseline) and 41.0%"
        in text
    )
    assert "41.0% (always “Low”)." in text
    assert "23 November 2026, 13:45 UTC" in text
    assert "10.6 points better" in text
    assert "0.139 better" in text


def test_worse_is_called_worse() -> None:
    manifest = model()
    manifest["comparison"][0]["metrics"] = {"accuracy": 0.9, "ordinal_mae": 0.1}

    text = Page(render_report(manifest, dataset())).text

    assert "19.0 points worse" in text
    assert "0.208 worse" in text


def test_models_of_the_comparison_are_named_in_full() -> None:
    manifest = model()
    same = Page(render_report(manifest, dataset())).text
    manifest["comparison"][0]["rows"] = 4700
    fewer = Page(render_report(manifest, dataset())).text

    assert "On 4,774 held-out rows. The baseline is listing-price@20261120T090000Z-9c8b7a, on the same rows." in same
    assert "on the 4,700 of them that it can score." in fewer


def _numbers(manifest: dict[str, Any], data: dict[str, Any]) -> list[str]:
    evaluation = manifest["evaluation"]
    three = [manifest["metrics"][name] for name in ("macro_f1", "roc_auc", "log_loss", "ordinal_mae", "ece")]
    three += [
        value for other in manifest["comparison"] for name, value in other["metrics"].items() if name != "accuracy"
    ]
    three += [line[name] for line in evaluation["per_class"].values() for name in ("precision", "recall", "f1")]
    shares = [manifest["metrics"]["accuracy"], *manifest["importance"].values()]
    shares += [
        bin[name]
        for bin in evaluation["calibration"]
        if bin["rows"]
        for name in ("lower", "upper", "confidence", "accuracy")
    ]
    counts = [count for row in evaluation["confusion"] for count in row] + [
        line["support"] for line in evaluation["per_class"].values()
    ]
    counts += [bin["rows"] for bin in evaluation["calibration"] if bin["rows"]]
    for segment in evaluation["segments"].values():
        shares += [line["accuracy"] for line in segment]
        counts += [line["rows"] for line in segment]
    for amounts in (evaluation["unscorable"], data["rows"], data["reasons"], data["warnings"]):
        counts += amounts.values()
    return (
        [f"{value:.3f}" for value in three] + [f"{share:.1%}" for share in shares] + [f"{count:,}" for count in counts]
    )


def test_every_number_appears() -> None:
    text = Page(render_report(model(), dataset())).text

    missing = [
        number
        for number in _numbers(model(), dataset())
        if not re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d])", text)
    ]

    assert not missing
    for shown in (
        "12.3 MB",
        "s3://listings/raw/nyc.parquet",
        "room_type:not_allowed",
        "02000000",
        "Bronx = 1",
        "settings.xgboost.max_depth",
        "over 180, up to 400",
    ):
        assert shown in text


def test_confusion_matrix_shows_shares_of_rows() -> None:
    drawn = str(charts.confusion_matrix([[3, 1], [0, 8]], ["A", "B"]))

    assert "A predicted as A: 3 (75%)" in drawn
    assert "A predicted as B: 1 (25%)" in drawn
    assert re.findall(r'class="heat q(\d)( right)?"', drawn) == [("6", " right"), ("2", ""), ("0", ""), ("8", " right")]


@pytest.mark.parametrize(("length", "width"), [(0.5, "50.00%"), (7.0, "100.00%"), (-1.0, "0.00%"), (math.nan, "0.00%")])
def test_bar_stays_in_its_cell(length: float, width: str) -> None:
    assert f'class="fill model" width="{width}"' in charts.bar(length)


def test_bar_has_a_whisker_of_the_standard_error() -> None:
    assert '<line class="whisker" x1="45.00%" x2="55.00%"' in charts.bar(0.5, spread=charts.standard_error(0.5, 100))


def test_reliability_puts_a_kept_promise_on_the_diagonal() -> None:
    drawn = str(charts.reliability([{"lower": 0, "upper": 1, "confidence": 0.5, "accuracy": 0.5, "rows": 8}]))

    point = re.search(r'<circle class="point" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    diagonal = re.search(r'<line class="diagonal" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)
    assert point is not None
    assert diagonal is not None
    x1, y1, x2, y2 = map(float, diagonal.groups())
    assert (float(point[1]), float(point[2])) == ((x1 + x2) / 2, (y1 + y2) / 2)


HOSTILE = """\x1b[2J\u202e<script>alert("1")</script>' onload='x"></title></style><b>&amp;"""


def test_texts_from_data_stay_texts() -> None:
    manifest, data = model(), dataset()
    before = Page(render_report(manifest, data))
    manifest["name"] = manifest["estimator"] = manifest["created"] = manifest["dataset"]["uri"] = HOSTILE
    manifest["comparison"][0]["name"] = HOSTILE
    manifest["evaluation"]["segments"]["neighbourhood"][0]["value"] = HOSTILE
    manifest["vocabulary"]["neighbourhood"][HOSTILE] = 3
    manifest["settings"][HOSTILE] = HOSTILE
    data["version"] = data["sources"][0]["path"] = data["sources"][0]["modified"] = HOSTILE
    data["reasons"][HOSTILE] = 1
    for part in (manifest["evaluation"], manifest):
        part["labels"] = [*LABELS[:3], HOSTILE]
    manifest["label"]["labels"] = manifest["labels"]
    manifest["evaluation"]["per_class"][HOSTILE] = manifest["evaluation"]["per_class"].pop("Lux")
    manifest["evaluation"]["majority"]["label"] = HOSTILE

    page = Page(render_report(manifest, data))

    assert {tag for tag, _ in page.elements} == {tag for tag, _ in before.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(re.sub(r"\s+", " ", printable(HOSTILE))) > 20


def test_page_names_no_outside_address_and_runs_nothing() -> None:
    page = Page(render_report(model(), dataset()))

    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "use", "base", "form"}
    assert not [
        name
        for _, attributes in page.elements
        for name in attributes
        if name in ("src", "href", "xlink:href", "style", "action")
    ]
    assert page.style
    assert not re.search(r"url\(|@import|http|//", page.style)
    assert {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    } in page.named("meta")


def test_style_knows_dark_screens_and_paper() -> None:
    style = Page(render_report(model(), dataset())).style

    light, dark = (
        re.findall(r"--([a-z0-9-]+):", style.split("@media")[0]),
        re.findall(r"--([a-z0-9-]+):", style.split("@media")[1]),
    )
    assert set(dark) == set(light)
    assert {f"q{step}" for step in range(charts.HEAT_STEPS)} < set(light)
    assert "@media print" in style


@pytest.mark.parametrize("part", ["comparison", "importance", "created", "split", "libraries"])
@pytest.mark.parametrize("empty", [True, False])
def test_optional_parts_of_a_model_may_be_missing(part: str, empty: bool) -> None:
    manifest = model()
    manifest[part] = type(manifest[part])()
    if not empty:
        del manifest[part]

    page = Page(render_report(manifest, dataset()))

    assert "Right for 71.0%" in page.text
    assert "None" not in page.text
    assert ("the baseline" in page.text) == (part != "comparison")
    assert ("What it looks at" in page.text) == (part != "importance")


@pytest.mark.parametrize("part", ["unscorable", "calibration", "segments", "majority"])
def test_optional_parts_of_an_evaluation_may_be_missing(part: str) -> None:
    manifest = model()
    del manifest["evaluation"][part]

    page = Page(render_report(manifest, dataset()))

    assert "Right for 71.0%" in page.text
    assert ("always “Low”" in page.text) == (part != "majority")
    assert ("By neighbourhood" in page.text) == (part != "segments")
    assert ("too sure" in page.text) == (part != "calibration")
    assert ("could not be scored" in page.text) == (part != "unscorable")


def test_a_clean_dataset_says_none() -> None:
    data = {"version": "v1", "rows": {"read": 0, "accepted": 0, "rejected": 0}}

    text = Page(render_report(model(), data)).text

    assert "Why rows were rejected None." in text
    assert "Source files" not in text


def test_a_metric_that_could_not_be_computed_is_left_out() -> None:
    manifest = model()
    manifest["metrics"]["roc_auc"] = math.nan
    manifest["metrics"]["log_loss"] = None

    text = Page(render_report(manifest, dataset())).text

    assert "ROC AUC" not in text
    assert "Log loss" not in text
    assert "nan" not in text


def test_many_segments_are_folded_and_none_is_lost() -> None:
    manifest = model()
    places = [{"value": f"Quarter {i}", "rows": 100 - i, "accuracy": 0.5} for i in range(40)]
    manifest["evaluation"]["segments"]["neighbourhood"] = list(reversed(places))

    text = Page(render_report(manifest, dataset())).text

    assert "28 more, with 88 rows or fewer" in text
    assert [text.index(f"Quarter {i} ") for i in range(40)] == sorted(text.index(f"Quarter {i} ") for i in range(40))


@pytest.mark.parametrize("number", [2, 12])
def test_any_number_of_categories(number: int) -> None:
    manifest = copy.deepcopy(model())
    labels = [f"A rather long category {i}" for i in range(number)]
    evaluation = manifest["evaluation"]
    manifest["label"] = {
        "kind": "bands",
        "bins": [100 * (i + 1) for i in range(number - 1)],
        "labels": labels,
        "minimum": 10,
    }
    manifest["labels"] = evaluation["labels"] = labels
    evaluation["confusion"] = [[10 * i + j for j in range(number)] for i in range(number)]
    evaluation["per_class"] = {label: {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 9} for label in labels}
    evaluation["majority"]["label"] = labels[0]

    page = Page(render_report(manifest, dataset()))

    cells = [attributes for attributes in page.named("g") if "heat" in str(attributes.get("class"))]
    assert len(cells) == number**2
    assert "over" in page.text


def test_what_is_strange_stands_below_the_verdict_once() -> None:
    notes = ["Only 40 rows measure the model.", "<b>bold</b>"]
    page = Page(render_report(model() | {"notes": notes}, dataset() | {"notes": notes[:1]}))

    assert page.text.count("Note: Only 40 rows measure the model.") == 1
    assert "Note: <b>bold</b>" in page.text
    assert "Note:" not in Page(render_report(model(), dataset())).text
