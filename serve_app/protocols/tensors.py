"""Tensors of the Open Inference Protocol: JSON or binary, to Arrow columns and back."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from serve_app.errors import RequestError

BYTES = "BYTES"
_NUMPY = {
    "BOOL": np.dtype("?"),
    **{
        f"{kind}{bits}": np.dtype(f"<{letter}{bits // 8}")
        for kind, letter in (("INT", "i"), ("UINT", "u"))
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
DATATYPES = (BYTES, *_NUMPY)


def refuse(message: str) -> RequestError:
    """A request that does not follow the protocol."""
    return RequestError(400, "invalid_tensor", message)


def read_tensor(tensor: Mapping[str, Any], binary: bytes | None) -> pa.Array:
    """One input of shape [n] or [n, 1] as a column; `binary` is its content if that came in binary.

    Raises RequestError 400 for what does not fit its own shape or type.

    >>> read_tensor({"name": "size", "datatype": "INT64", "shape": [2], "data": [1, 2]}, None).to_pylist()
    [1, 2]
    """
    name, datatype = tensor["name"], tensor.get("datatype")
    if datatype not in DATATYPES:
        raise refuse(f"{name}: the datatype is unknown. Send one of {', '.join(DATATYPES)}.")
    rows = rows_of(tensor)
    if binary is not None:
        values = _texts(binary, name, rows) if datatype == BYTES else _numbers(binary, datatype, name)
    else:
        values = _listed(tensor.get("data"), datatype, name, rows)
    if len(values) != rows:
        raise _wrong_length(name, len(values), rows)
    try:
        return pa.array(values, pa.string() if datatype == BYTES else pa.from_numpy_dtype(_NUMPY[datatype]))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        raise refuse(f"{name}: a value is not of the datatype {datatype}.") from None


def rows_of(tensor: Mapping[str, Any]) -> int:
    """n of the shape [n] or [n, 1]. Raises RequestError 400 for any other.

    >>> rows_of({"name": "size", "shape": [3, 1]})
    3
    """
    shape = tensor.get("shape")
    whole = (
        isinstance(shape, list)
        and len(shape) in (1, 2)
        and all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**40 for size in shape)
    )
    if not whole or not isinstance(shape, list) or shape[1:] not in ([], [1]):
        raise refuse(f"{tensor['name']}: the shape must be [n] or [n, 1].")
    return int(shape[0])


def write_texts(texts: Sequence[str]) -> bytes:
    """BYTES in binary: each text after its length.

    >>> write_texts(["Low"])
    b'\\x03\\x00\\x00\\x00Low'
    """
    return b"".join(struct.pack("<I", len(encoded)) + encoded for encoded in (text.encode() for text in texts))


def _wrong_length(name: str, found: int, rows: int) -> RequestError:
    return refuse(f"{name}: {found} values, but its shape says {rows}.")


def _texts(content: bytes, name: str, rows: int) -> list[str]:
    """At most one more than `rows`: many are empty texts that would fill the memory."""
    texts: list[str] = []
    position = 0
    while position < len(content) and len(texts) <= rows:
        if position + 4 > len(content):
            raise refuse(f"{name}: its binary data ends within a length.")
        (size,) = struct.unpack_from("<I", content, position)
        position += 4
        if position + size > len(content):
            raise refuse(f"{name}: its binary data ends within a text.")
        try:
            texts.append(content[position : position + size].decode())
        except UnicodeDecodeError:
            raise refuse(f"{name}: a text is not UTF-8.") from None
        position += size
    return texts


def _numbers(content: bytes, datatype: str, name: str) -> Any:
    kind = _NUMPY[datatype]
    if len(content) % kind.itemsize:
        raise refuse(f"{name}: {len(content)} bytes are not a whole number of {datatype} values.")
    # numpy would take a byte other than 0 and 1 for a bool that equals neither.
    return np.frombuffer(content, np.uint8) != 0 if datatype == "BOOL" else np.frombuffer(content, kind)


def _listed(data: Any, datatype: str, name: str, rows: int) -> list[Any]:
    if not isinstance(data, list):
        raise refuse(f"{name}: its data is missing or not a list.")
    if len(data) != rows:
        raise _wrong_length(name, len(data), rows)
    flat = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    if not all(value is None or _is_of(value, datatype) for value in flat):
        raise refuse(f"{name}: a value is not of the datatype {datatype}.")
    return flat


def _is_of(value: Any, datatype: str) -> bool:
    if datatype == BYTES:
        return isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (datatype.startswith("FP") and isinstance(value, float) and not math.isinf(value))
