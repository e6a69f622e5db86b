"""What stores share when they read tables."""

from collections.abc import Collection

import pyarrow as pa

from nightprice.errors import closest
from pipeline.io.stores import AddressError
from transforms.clean import SOURCE_FILE, as_text


def with_source_file(table: pa.Table, where: str) -> pa.Table:
    """The rows with `where`, a path or an address without secrets, in the column `source_file`."""
    column = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [where])
    position = table.schema.get_field_index(SOURCE_FILE)
    if position < 0:
        return table.append_column(SOURCE_FILE, column)
    return table.set_column(position, SOURCE_FILE, column)


def as_raw_rows(table: pa.Table, where: str) -> pa.Table:
    """The rows with lists as JSON text, and with the address they come from, unless they already hold one."""
    table = lists_as_json(table)
    return table if SOURCE_FILE in table.column_names else with_source_file(table, where)


def lists_as_json(table: pa.Table) -> pa.Table:
    """Lists, structs and maps as JSON text, which is how raw rows hold their lists."""
    for position, column in enumerate(table.schema):
        if pa.types.is_nested(column.type):
            table = table.set_column(position, column.name, as_text(table[position]))
    return table


def missing_table(display: str, table: str, available: Collection[str]) -> AddressError:
    """The error for a table that is not among those of its database; `display` is its address without secrets."""
    listed = f"Tables there: {', '.join(sorted(available)[:20])}." if available else "The database has no tables."
    return AddressError(f'"{display}": there is no table "{table}".{closest(table, available)} {listed}')
