"""One pass over a dataset before training: how its texts relate to the labels, and a few rows to check a model on."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data

from nightprice.errors import NightpriceError
from pipeline import progress
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.row_sample import sampled
from pipeline.split import Split
from transforms.contract import FIXED_ORDER, Contract
from transforms.encode import learn_vocabulary

# Training rows that the export is checked on; some of them become the golden rows of the artifact.
SAMPLE_ROWS = 256
# With fewer, metrics say nothing and early stopping has no slice to watch.
MIN_TRAINING_ROWS = 100
MIN_HOLDOUT_ROWS = 10
# Rows counted at once: keeps a task's memory flat whatever the size of the blocks.
BATCH_ROWS = 65_536

# Of one field: the driver counts each, and the manifest of the model names each.
MOST_CATEGORIES = 100_000

CountsByValue = dict[str, Counter[str]]


class TrainingError(NightpriceError):
    """Data that no model can be trained on; the message says what was found and what to do."""


@dataclass
class DatasetStatistics:
    """What one pass keeps of a dataset; those of parts of the rows add up with `+`."""

    key: str
    """The column of the rows' keys."""
    training: Counter[str] = field(default_factory=Counter)
    """Training rows by label."""
    holdout: int = 0
    values: dict[str, CountsByValue] = field(default_factory=dict)
    """By field and value: training rows by label."""
    sample: pa.Table | None = None
    """The training rows with the smallest hashes of their keys: the same rows in whatever order they are read."""

    @property
    def rows(self) -> int:
        """Training rows."""
        return self.training.total()

    def __add__(self, other: "DatasetStatistics") -> "DatasetStatistics":
        values = {
            name: _added(self.values.get(name, {}), other.values.get(name, {})) for name in self.values | other.values
        }
        samples = [part for part in (self.sample, other.sample) if part is not None]
        return DatasetStatistics(
            self.key,
            self.training + other.training,
            self.holdout + other.holdout,
            values,
            sampled(pa.concat_tables(samples), self.key, SAMPLE_ROWS) if samples else None,
        )

    def vocabulary(self, contract: Contract, labels: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """The vocabulary of the training rows; `labels` in ascending order."""
        counts = {
            name: {value: [by_label[label] for label in labels] for value, by_label in by_value.items()}
            for name, by_value in self.values.items()
        }
        return learn_vocabulary(contract, {name: counts.get(name, {}) for name in contract.coded})

    def check(self, labels: tuple[str, ...], split: Split) -> None:
        """Raise TrainingError for data that no model can be trained on."""
        unknown = sorted(set(self.training) - set(labels))
        if unknown:
            raise TrainingError(
                f"The dataset has rows of the label {unknown[0]!r}, but its manifest names {', '.join(labels)}. "
                "Process it again."
            )
        if split.ids is not None and not self.holdout:
            raise TrainingError(
                f'None of the {len(split.ids):,} ids in "{split.file}" is among the {self.rows:,} rows of the dataset. '
                "Check that the file belongs to this dataset."
            )
        if self.rows < MIN_TRAINING_ROWS or self.holdout < MIN_HOLDOUT_ROWS:
            raise TrainingError(
                f"Too few rows: {self.rows:,} to train on and {self.holdout:,} held out, but at least "
                f"{MIN_TRAINING_ROWS} and {MIN_HOLDOUT_ROWS} are needed. Process more, or change the holdout share."
            )
        if len(self.training) < 2:
            raise TrainingError(
                f'All {self.rows:,} training rows have the one label "{next(iter(self.training))}": there is nothing '
                "to learn. Set bins that divide this data, and process it again."
            )


def collect_statistics(rows: ray.data.Dataset, split: Split, contract: Contract) -> DatasetStatistics:
    """Read the training columns once, in parallel; only counts and a few rows reach the driver."""
    count = partial(_row_of_statistics, split=split, contract=contract)
    parts = map_tables(rows, count, batch_size=BATCH_ROWS)
    parts.set_name("statistics")
    total = DatasetStatistics(contract.key)
    for row in parts.iter_rows():
        part = _from_row(row, contract.key)
        total += part
        _check_categories(total)
        progress.advance(rows=part.rows + part.holdout)
    return total


def _check_categories(statistics: DatasetStatistics) -> None:
    """Raise TrainingError for a text that is no category, such as a free one or a key."""
    for name, values in statistics.values.items():
        if len(values) > MOST_CATEGORIES:
            raise TrainingError(
                f'The field "{name}" has more than {MOST_CATEGORIES:,} different values, too many for categories. '
                "Leave it out of the contract, or let its rule read them into groups."
            )


def statistics_of(table: pa.Table, split: Split, contract: Contract) -> DatasetStatistics:
    """The statistics of one batch of rows."""
    held = split.is_holdout(table[contract.key].to_numpy())
    training = table.filter(pa.array(~held))
    label = contract.label_name
    labels = Counter({entry["values"]: entry["counts"] for entry in training[label].value_counts().to_pylist()})
    ranked = [name for name, encoding in contract.coded.items() if encoding != FIXED_ORDER]
    values = {name: _by_value(training, name, label) for name in ranked}
    return DatasetStatistics(
        contract.key, labels, int(held.sum()), values, sampled(training, contract.key, SAMPLE_ROWS)
    )


def _row_of_statistics(table: pa.Table, split: Split, contract: Contract) -> pa.Table:
    part = statistics_of(table, split, contract)
    counts = {"training": part.training, "holdout": part.holdout, "values": part.values}
    return pa.table({"counts": [json.dumps(counts)], "sample": [_to_ipc(part.sample)]})


def _from_row(row: Mapping[str, Any], key: str) -> DatasetStatistics:
    counts = json.loads(row["counts"])
    values = {
        name: {value: Counter(by_label) for value, by_label in by_value.items()}
        for name, by_value in counts["values"].items()
    }
    sample = pa.ipc.open_stream(row["sample"]).read_all()
    return DatasetStatistics(key, Counter(counts["training"]), counts["holdout"], values, sample)


def _by_value(table: pa.Table, name: str, label: str) -> CountsByValue:
    counts: CountsByValue = {}
    for entry in table.group_by([name, label]).aggregate([([], "count_all")]).to_pylist():
        if entry[name] is not None:
            counts.setdefault(entry[name], Counter())[entry[label]] = entry["count_all"]
    return counts


def _added(one: CountsByValue, other: CountsByValue) -> CountsByValue:
    return {name: one.get(name, Counter()) + other.get(name, Counter()) for name in {**one, **other}}


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
