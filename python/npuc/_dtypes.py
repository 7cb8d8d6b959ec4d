"""Element types: ONNX's numbers, onnxruntime's names, numpy's types, and the packed form of the C API.

Types narrower than a byte have one element per byte in numpy (ml_dtypes) and are packed in the C API, low bits first.
"""
import ml_dtypes
import numpy as np

# ONNX TensorProto.DataType: (name as in "tensor(float)", numpy type, bits)
TYPES = {
    1: ("float", np.float32, 32), 2: ("uint8", np.uint8, 8), 3: ("int8", np.int8, 8), 4: ("uint16", np.uint16, 16),
    5: ("int16", np.int16, 16), 6: ("int32", np.int32, 32), 7: ("int64", np.int64, 64), 8: ("string", np.object_, 0),
    9: ("bool", np.bool_, 8), 10: ("float16", np.float16, 16), 11: ("double", np.float64, 64), 12: ("uint32", np.uint32, 32),
    13: ("uint64", np.uint64, 64), 14: ("complex64", np.complex64, 64), 15: ("complex128", np.complex128, 128),
    16: ("bfloat16", ml_dtypes.bfloat16, 16), 17: ("float8e4m3fn", ml_dtypes.float8_e4m3fn, 8),
    18: ("float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8), 19: ("float8e5m2", ml_dtypes.float8_e5m2, 8),
    20: ("float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8), 21: ("uint4", ml_dtypes.uint4, 4), 22: ("int4", ml_dtypes.int4, 4),
    23: ("float4e2m1", ml_dtypes.float4_e2m1fn, 4), 24: ("float8e8m0", ml_dtypes.float8_e8m0fnu, 8),
    25: ("uint2", ml_dtypes.uint2, 2), 26: ("int2", ml_dtypes.int2, 2),
    27: ("float6e2m3", ml_dtypes.float6_e2m3fn, 6), 28: ("float6e3m2", ml_dtypes.float6_e3m2fn, 6),
}
NUMBERS = {np.dtype(kind): number for number, (_, kind, _) in TYPES.items()}


def type_name(number):
    """ "tensor(float)" for 1; the names onnxruntime uses."""
    return f"tensor({TYPES[number][0]})"


def numpy_type(number):
    """numpy's type of an ONNX element type number."""
    return np.dtype(TYPES[number][1])


def type_number(dtype):
    """ONNX's number of a numpy type, or None; texts of any width are strings."""
    dtype = np.dtype(dtype)
    return 8 if dtype.kind in "US" else NUMBERS.get(dtype.newbyteorder("=") if dtype.kind in "iufc" else dtype)


def pack(array, number):
    """A contiguous array of `array`'s elements as the C API wants them. array: any shape, of the type `number`."""
    bits = TYPES[number][2]
    array = np.ascontiguousarray(array)
    if bits >= 8:
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    codes = array.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    stream = ((codes[:, None] >> np.arange(bits, dtype=np.uint8)) & 1).reshape(-1)
    return np.packbits(stream, bitorder="little")


def unpack(raw, number, shape):
    """A new array of `shape` from the bytes of the C API."""
    dtype, bits = numpy_type(number), TYPES[number][2]
    count = int(np.prod(shape, dtype=np.int64))
    if bits >= 8:
        return np.frombuffer(raw, dtype=dtype, count=count).reshape(shape).copy()
    stream = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    codes = (stream << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if TYPES[number][0].startswith("int"):
        sign = 1 << (bits - 1)
        return ((codes ^ sign).astype(np.int8) - sign).astype(dtype).reshape(shape)
    return codes.view(dtype).reshape(shape)
