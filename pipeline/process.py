"""Raw records in, a dataset out: one pass, in parallel, published all or nothing."""

from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from nightprice.address import parse_address
from pipeline import progress
from pipeline.cluster.arrow_tasks import map_tables
from pipeline.cluster.session import on_ray
from pipeline.cluster.shared_folder import check_sink
from pipeline.io import read, tag, write
from pipeline.io.files.locate import check_apart
from pipeline.manifests import DatasetManifest
from pipeline.notes import dataset_notes
from pipeline.run import check_written, describe_run, target_notes
from pipeline.settings import Settings
from transforms.clean import clean, rejected_schema
from transforms.contract import Contract, Label


@on_ray
def process(source: str, sink: str, settings: Settings) -> DatasetManifest:
    """Read raw records, split them by the contract, write accepted and rejected rows, publish; returns the manifest.

    Raises StoreError or ContractError when source or sink can't be used, GateRefused when more than
    `settings.max_rejected` of the rows were rejected. What was live at the sink then stays live.
    """
    started = datetime.now(UTC)
    origin, target = parse_address(source), parse_address(sink)
    check_apart(origin, target)
    check_sink(target)
    contract = settings.load_contract()
    label = settings.label(contract)
    raw = read(origin, contract.choose_columns)
    block = partial(clean_block, contract=contract, label=label, missing_values=settings.missing_values)
    cleaned = map_tables(raw.rows, block)
    cleaned.set_name("process")
    progress.begin("cleaning", tasks=raw.tasks)
    with write(target, cleaned, rejected_schema(contract), contract.key) as staged:
        check_written(staged, origin, contract, settings.max_rejected)
        manifest = describe_run(staged, raw, contract, settings, started)
        manifest["label"] = label.as_json()
        if staged.stats.sample is not None:
            notes = dataset_notes(staged.stats.sample, contract, label)
            manifest["notes"] = [*target_notes(staged.stats, contract), *notes]
        staged.publish(manifest)
    return manifest


def clean_block(raw: pa.Table, contract: Contract, label: Label, missing_values: tuple[str, ...]) -> pa.Table:
    """One block of raw rows as a tagged table."""
    cleaned = clean(raw, contract, label, missing_values=missing_values)
    if len(cleaned.accepted) + len(cleaned.rejected) != len(raw):
        raise AssertionError(
            f"{len(raw)} rows became {len(cleaned.accepted)} accepted and {len(cleaned.rejected)} rejected"
        )
    return tag(cleaned.accepted, cleaned.rejected, cleaned.warnings)
