"""What the stores of tables share when they are read."""

from collections.abc import Collection

import pyarrow as pa

from nightprice.errors import closest
from pipeline.io.stores import StoreError
from transforms.clean import SOURCE_FILE, as_text


def with_source(table: pa.Table, where: str) -> pa.Table:
    """The rows with lists as JSON text, and with the address they come from, if they do not say so themselves."""
    table = lists_as_json(table)
    if SOURCE_FILE in table.column_names:
        return table
    return table.append_column(
        SOURCE_FILE, pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [where])
    )


def lists_as_json(table: pa.Table) -> pa.Table:
    """Lists, structs and maps as JSON text, which is how raw listings hold their amenities."""
    for position, item in enumerate(table.schema):
        if pa.types.is_nested(item.type):
            table = table.set_column(position, item.name, as_text(table[position]))
    return table


def missing_table(shown: str, table: str, there: Collection[str]) -> StoreError:
    """The error for a table that is not among those there."""
    listed = f"Tables there: {', '.join(sorted(there)[:20])}." if there else "No table is there."
    return StoreError(f'"{shown}": there is no table "{table}".{closest(table, there)} {listed}')
