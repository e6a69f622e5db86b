"""Arrow's view types, which Polars writes, as the plain types that compute functions know."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Lengths = npt.NDArray[np.int64]


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type without views: of texts, of lists of them, of dictionaries of them."""
    if pa.types.is_string_view(type):
        return pa.string()
    if pa.types.is_binary_view(type):
        return pa.binary()
    if pa.types.is_list(type) or pa.types.is_list_view(type) or pa.types.is_fixed_size_list(type):
        return pa.list_(plain_type(type.value_type))
    if pa.types.is_large_list(type) or pa.types.is_large_list_view(type):
        return pa.large_list(plain_type(type.value_type))
    if pa.types.is_dictionary(type):
        return pa.dictionary(type.index_type, plain_type(type.value_type), type.ordered)
    return type


def without_views(column: pa.Array) -> pa.Array:
    """The column in its plain type.

    >>> without_views(pa.array([["a"], None], pa.list_view(pa.string_view()))).type
    ListType(list<item: string>)
    """
    plain = plain_type(column.type)
    if plain == column.type:
        return column
    if pa.types.is_dictionary(plain):
        # Arrow has no cast between dictionaries of these types.
        return pa.DictionaryArray.from_arrays(column.indices, without_views(column.dictionary), ordered=plain.ordered)
    if _is_list_view(column.type):
        # Arrow's own cast gives an invalid array for one that was read from a stream.
        ends = np.cumsum(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        offsets = np.concatenate([[0], ends]).astype("i8" if pa.types.is_large_list(plain) else "i4")
        of = pa.LargeListArray if pa.types.is_large_list(plain) else pa.ListArray
        return of.from_arrays(offsets, without_views(column.flatten()), mask=column.is_null())
    return column.cast(plain)


def text_bytes(column: pa.Array) -> int:
    """How many bytes of text a column has once it is plain: without, many rows can share the bytes of one text.

    >>> text_bytes(pa.DictionaryArray.from_arrays([0, 0, 0], pa.array(["four"], pa.string_view())))
    12
    """
    type = column.type
    if pa.types.is_dictionary(type):
        return int(_lengths(column.dictionary)[column.indices.drop_null().to_numpy()].sum())
    if _is_list_view(type):
        ends = np.concatenate([[0], np.cumsum(_lengths(column.values))])
        filled = _valid(column)
        starts = column.offsets.to_numpy()[filled]
        return int((ends[starts + column.sizes.to_numpy()[filled]] - ends[starts]).sum())
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        column = column.flatten()
    return int(_lengths(column).sum())


def _is_list_view(type: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(type) or pa.types.is_large_list_view(type))


def _lengths(column: pa.Array) -> Lengths:
    """The bytes of each text; 0 for null, and for what is not a text."""
    type = column.type
    if pa.types.is_string_view(type) or pa.types.is_binary_view(type):
        # A view has 16 bytes, of which the first four are the length.
        views = np.frombuffer(column.buffers()[1], "<i4")[::4][column.offset :][: len(column)]
        return np.where(_valid(column), views, 0).astype(np.int64)
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        lengths = pc.binary_length(column).fill_null(0)
        return np.asarray(lengths, np.int64)
    return np.zeros(len(column), np.int64)


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid
