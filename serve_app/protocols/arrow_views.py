"""Arrow's view types, which Polars writes, as the plain types that compute functions know."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Lengths = npt.NDArray[np.int64]
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


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
    if is_list(type):
        column = column.flatten()
    return int(_lengths(column).sum())


def viewed_bytes(column: pa.Array) -> int:
    """How many bytes its views name, which to validate reads them all; 0 where there are none.

    Nothing of the column has to be validated but its layout.
    """
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    texts = texts.values if is_list(texts.type) else texts
    return int(_lengths(texts).sum()) if plain_type(texts.type) != texts.type else 0


def list_items(column: pa.Array) -> int:
    """How many items its lists have together, where several may share them."""
    if not is_list(column.type):
        return 0
    return int(pc.sum(column.value_lengths()).as_py() or 0)


def is_list(type: pa.DataType) -> bool:
    """Whether it is any of Arrow's types of lists."""
    return bool(
        pa.types.is_list(type)
        or pa.types.is_large_list(type)
        or pa.types.is_fixed_size_list(type)
        or _is_list_view(type)
    )


def _is_list_view(type: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(type) or pa.types.is_large_list_view(type))


def _lengths(column: pa.Array) -> Lengths:
    """The bytes of each text; 0 for null, and for what is not a text."""
    type = column.type
    if pa.types.is_string_view(type) or pa.types.is_binary_view(type):
        # A view has 16 bytes, of which the first four are the length.
        views = np.frombuffer(column.buffers()[1], "<i4")[::4][column.offset :][: len(column)]
        return np.where(_valid(column), views, 0).astype(np.int64).clip(min=0)
    if any(of(type) for of in _TEXTS):
        lengths = pc.binary_length(column).fill_null(0)
        return np.asarray(lengths, np.int64)
    return np.zeros(len(column), np.int64)


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid
