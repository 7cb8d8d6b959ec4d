"""Values of the C API that are more than one array of numbers: text, sequences (list), optional values (None or a value).

A tree of struct npurt_tensor points into arrays that must live as long as the call that reads it: they are collected in `kept`.
"""
import ctypes as C

import numpy as np

from . import _dtypes, _lib
from ._errors import NpucError

TENSOR, SEQUENCE, OPTIONAL = 0, 1, 2
TEXT = 8 # TensorProto.STRING


def type_name(kind, number):
    """ "tensor(float)", "seq(tensor(string))", "optional(tensor(float))"."""
    inner = _dtypes.type_name(number)
    return {TENSOR: inner, SEQUENCE: f"seq({inner})", OPTIONAL: f"optional({inner})"}[kind]


def _encoded(item):
    return item if isinstance(item, bytes) else str(item).encode()


def _text(array, kept):
    items = [_encoded(item) for item in array.reshape(-1)]
    strings = (_lib.String * max(len(items), 1))()
    for slot, item in zip(strings, items):
        slot.text, slot.size = item, len(item)
    kept += [items, strings]
    return C.cast(strings, C.c_void_p).value, C.sizeof(_lib.String) * len(items)


def _elements(values, number, name, kept):
    parts = (_lib.Tensor * max(len(values), 1))(*[to_api(v, number, name, kept) for v in values])
    kept.append(parts)
    return C.cast(parts, C.c_void_p).value, C.sizeof(_lib.Tensor) * len(values)


def to_api(value, number, name, kept):
    """struct npurt_tensor of a value whose tensors have the element type `number`; `name` is for messages."""
    t = _lib.Tensor(dtype=number)
    if value is None or isinstance(value, (list, tuple)):
        values = [] if value is None else list(value)
        t.kind, t.rank, t.dims[0] = OPTIONAL if value is None else SEQUENCE, 1, len(values)
        t.data, t.size = _elements(values, number, name, kept)
        return t
    array = np.asarray(value)
    found = TEXT if array.dtype.kind == "O" else _dtypes.type_number(array.dtype)
    if found != number:
        raise NpucError(3, f"input '{name}' has a tensor of {array.dtype}, expected {_dtypes.TYPES[number][0]}")
    if array.ndim > _lib.MAX_RANK:
        raise NpucError(3, f"input '{name}' has {array.ndim} dimensions, at most {_lib.MAX_RANK} are possible")
    t.rank = array.ndim
    t.dims[: array.ndim] = array.shape
    if number == TEXT:
        t.data, t.size = _text(array, kept)
    else:
        packed = _dtypes.pack(array, number)
        kept.append(packed)
        t.data, t.size = packed.ctypes.data, packed.nbytes
    return t


def _strings(t, count):
    strings = C.cast(t.data, C.POINTER(_lib.String))
    return [C.string_at(strings[i].text, strings[i].size).decode("utf-8", "replace") for i in range(count)]


def from_api(t):
    """A value of its own from a struct npurt_tensor: array (of objects for text), list, or None for an absent one."""
    if t.kind != TENSOR:
        elements = C.cast(t.data, C.POINTER(_lib.Tensor))
        values = [from_api(elements[i]) for i in range(t.dims[0])]
        return values if t.kind == SEQUENCE else values[0] if values else None
    shape = tuple(t.dims[: t.rank])
    if t.dtype == TEXT:
        array = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
        array[:] = _strings(t, array.size)
        return array.reshape(shape)
    return _dtypes.unpack(C.string_at(t.data, t.size) if t.size else b"", t.dtype, shape)
