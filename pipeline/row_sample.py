"""A sample of rows that does not depend on the order in which they are read: those with the smallest hashes."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.split import SAMPLE, unit_hash


def sampled(table: pa.Table, key: str, rows: int) -> pa.Table:
    """The rows of a table whose keys (64-bit integers) have the smallest hashes, at most so many.

    A sample of samples of parts is the sample of all.
    """
    if len(table) <= rows:
        return table
    order = pa.array(unit_hash(table[key].to_numpy(), SAMPLE))
    return table.take(pc.select_k_unstable(pa.table({"hash": order}), rows, sort_keys=[("hash", "ascending")]))
