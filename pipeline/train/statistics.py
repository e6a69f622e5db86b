"""One pass over a dataset before training: how its categories relate to prices, and a few rows to check a model on."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from nightprice.errors import NightpriceError
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.split import SAMPLE, Split, unit_hash
from transforms.contract import CATEGORY, FEATURES
from transforms.encode import Vocabulary

COLUMNS = ("id", *FEATURES, CATEGORY)
# Categories of these fields are coded by their mean price category.
LEARNED = ("neighbourhood", "property_type")
# Training rows that the export is checked on; some of them become the golden rows of the artifact.
SAMPLE_ROWS = 256
# With fewer, metrics say nothing and early stopping has no slice to watch.
LEAST_TRAINING_ROWS = 100
LEAST_HOLDOUT_ROWS = 10
# Rows counted at once: keeps a task's memory flat whatever the size of the blocks.
BATCH_ROWS = 65_536

CountsByValue = dict[str, Counter[str]]


class TrainingError(NightpriceError):
    """Data that no model can be trained on; the message says what was found and what to do."""


@dataclass
class Learned:
    """What one pass keeps of a dataset; parts of the rows add up with `+`."""

    training: Counter[str] = field(default_factory=Counter)
    """Training rows by price category."""
    holdout: int = 0
    values: dict[str, CountsByValue] = field(default_factory=lambda: {name: {} for name in LEARNED})
    """By field and value: training rows by price category."""
    sample: pa.Table | None = None
    """The training rows with the smallest hashes of their ids: the same rows in whatever order they are read."""

    @property
    def rows(self) -> int:
        """Training rows."""
        return self.training.total()

    def __add__(self, other: "Learned") -> "Learned":
        samples = [part for part in (self.sample, other.sample) if part is not None]
        return Learned(
            self.training + other.training,
            self.holdout + other.holdout,
            {name: _added(self.values[name], other.values[name]) for name in LEARNED},
            _smallest(pa.concat_tables(samples)) if samples else None,
        )

    def vocabulary(self, labels: tuple[str, ...]) -> Vocabulary:
        """The vocabulary of the training rows; `labels` in ascending order of price."""
        ordered = {
            name: {value: [found[label] for label in labels] for value, found in self.values[name].items()}
            for name in LEARNED
        }
        return Vocabulary.learn(ordered["neighbourhood"], ordered["property_type"])

    def check(self, labels: tuple[str, ...], split: Split) -> None:
        """Raise TrainingError for data that no model can be trained on."""
        strange = sorted(set(self.training) - set(labels))
        if strange:
            raise TrainingError(
                f"The dataset has rows of the category {strange[0]!r}, but its manifest names "
                f"{', '.join(labels)}. Process it again."
            )
        if split.ids is not None and not self.holdout:
            raise TrainingError(
                f'None of the {len(split.ids):,} ids in "{split.file}" is among the {self.rows:,} listings of the '
                "dataset. "
                "Check that the file belongs to this dataset."
            )
        if self.rows < LEAST_TRAINING_ROWS or self.holdout < LEAST_HOLDOUT_ROWS:
            raise TrainingError(
                f"Too few rows: {self.rows:,} to train on and {self.holdout:,} held out, at least "
                f"{LEAST_TRAINING_ROWS} and "
                f"{LEAST_HOLDOUT_ROWS} are needed. Process more listings, or change the holdout share."
            )
        if len(self.training) < 2:
            raise TrainingError(
                f'All {self.rows:,} training rows are of the one category "{next(iter(self.training))}": there is '
                "nothing to learn. "
                "Set bins that divide the prices of this data, and process it again."
            )


def learn(rows: ray.data.Dataset, split: Split) -> Learned:
    """Read the columns COLUMNS once, in parallel; only counts and a few rows reach the driver."""
    count = partial(_learned_row, split=split)
    parts = map_tables(rows, count, batch_size=BATCH_ROWS)
    parts.set_name("learn")
    return sum(map(_from_row, parts.iter_rows()), Learned())


def learn_batch(table: pa.Table, split: Split) -> Learned:
    """What is known after one batch of rows with the columns COLUMNS."""
    held = split.is_holdout(table["id"].to_numpy())
    training = table.filter(pa.array(~held))
    categories = Counter({entry["values"]: entry["counts"] for entry in training[CATEGORY].value_counts().to_pylist()})
    return Learned(
        categories, int(held.sum()), {name: _by_value(training, name) for name in LEARNED}, _smallest(training)
    )


def _learned_row(table: pa.Table, split: Split) -> pa.Table:
    learned = learn_batch(table, split)
    counts = {"training": learned.training, "holdout": learned.holdout, "values": learned.values}
    return pa.table({"counts": [json.dumps(counts)], "sample": [_to_ipc(learned.sample)]})


def _from_row(row: Mapping[str, Any]) -> Learned:
    counts = json.loads(row["counts"])
    values = {name: {value: Counter(found) for value, found in by.items()} for name, by in counts["values"].items()}
    return Learned(Counter(counts["training"]), counts["holdout"], values, pa.ipc.open_stream(row["sample"]).read_all())


def _by_value(table: pa.Table, name: str) -> CountsByValue:
    found: CountsByValue = {}
    for entry in table.group_by([name, CATEGORY]).aggregate([([], "count_all")]).to_pylist():
        if entry[name] is not None:
            found.setdefault(entry[name], Counter())[entry[CATEGORY]] = entry["count_all"]
    return found


def _smallest(table: pa.Table) -> pa.Table:
    order = pa.array(unit_hash(table["id"].to_numpy(), SAMPLE))
    return table.take(pc.select_k_unstable(pa.table({"hash": order}), SAMPLE_ROWS, sort_keys=[("hash", "ascending")]))


def _added(one: CountsByValue, other: CountsByValue) -> CountsByValue:
    return {name: one.get(name, Counter()) + other.get(name, Counter()) for name in {**one, **other}}


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
