"""Arrow arrays from Python lists and back, by one join and one copy.

`pyarrow.array` and `to_pylist` convert item by item, and the first call of `pyarrow.array` imports pandas, which
takes longer than a worker process needs for thousands of rows.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np


def _offsets(lengths: Sequence[int]) -> Any:
    import pyarrow as pa

    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.py_buffer(offsets)


def _bits(values: Sequence[bool]) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(np.array(values, dtype=bool), bitorder="little"))


def _validity(values: Sequence[object]) -> Any:
    return _bits([value is not None for value in values]) if None in values else None


def strings(values: Sequence[bytes | None]) -> Any:
    """String array of UTF-8 texts; None is NULL. The texts together stay below 2 GiB."""
    import pyarrow as pa

    validity = _validity(values)
    present = [value or b"" for value in values]
    buffers = [validity, _offsets([len(v) for v in present]), pa.py_buffer(b"".join(present))]
    return pa.Array.from_buffers(pa.string(), len(present), buffers)


def digests(values: Sequence[bytes], width: int) -> Any:
    """Binary array of values that are `width` bytes each."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(b"".join(values))])


def numbers(values: Sequence[int | None], kind: str) -> Any:
    """int32 or int64 array (`kind`); None is NULL."""
    import pyarrow as pa

    validity = _validity(values)
    data = np.array([value or 0 for value in values], dtype=kind)
    return pa.Array.from_buffers(getattr(pa, kind)(), len(data), [validity, pa.py_buffer(data)])


def booleans(values: Sequence[bool]) -> Any:
    """Boolean array."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def string_lists(values: Sequence[Sequence[bytes]]) -> Any:
    """Array of lists of strings."""
    import pyarrow as pa

    return _lists(pa.string(), values, strings(list(chain.from_iterable(values))))


def number_lists(values: Sequence[Sequence[int]]) -> Any:
    """Array of lists of int32."""
    import pyarrow as pa

    return _lists(pa.int32(), values, numbers(list(chain.from_iterable(values)), "int32"))


def _lists(kind: Any, values: Sequence[Sequence[object]], items: Any) -> Any:
    import pyarrow as pa

    buffers = [None, _offsets([len(v) for v in values])]
    return pa.Array.from_buffers(pa.list_(kind), len(values), buffers, children=[items])


def record_batch(schema: Any, columns: Mapping[str, Any]) -> Any:
    """Record batch of a schema from arrays by name."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def fixed_values(array: Any, width: int) -> list[bytes]:
    """Values of an array (strings or binaries without NULL) that are `width` bytes each."""
    if not len(array):
        return []
    data = memoryview(array.buffers()[-1])[array.offset * width : (array.offset + len(array)) * width].tobytes()
    return [data[at : at + width] for at in range(0, len(data), width)]


def lengths(array: Any) -> list[int]:
    """Lengths of the values of a string array [bytes]."""
    if not len(array):
        return []
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32, count=len(array) + 1, offset=4 * array.offset)
    return [int(length) for length in np.diff(offsets).tolist()]


def list_values(array: Any) -> list[list[int]]:
    """Values of an array of lists of int32."""
    if not len(array):
        return []
    bounds = np.frombuffer(array.buffers()[1], dtype=np.int32, count=len(array) + 1, offset=4 * array.offset).tolist()
    values = array.values
    flat = np.frombuffer(values.buffers()[1], dtype=np.int32, count=len(values)).tolist() if len(values) else []
    return [flat[start:end] for start, end in pairwise(bounds)]
