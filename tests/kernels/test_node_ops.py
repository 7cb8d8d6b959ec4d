"""Runs every official ONNX node test of one node whose operator has a kernel against that kernel.

usage: test_node_ops.py LIBRARY [PATTERN] -- LIBRARY is a shared object that exports the kernels (k_op_find, arena_init, ...).
Prints a line per failing case and a summary; exit code 1 when a case fails that is not listed in KNOWN.
Judged as ONNX does: rtol 1e-3, atol 1e-7, exact type and shape; bfloat16 in float32 with rtol 2^-6."""
import ctypes as C
import sys
import warnings

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

# Operators whose cases say nothing about their kernel.
NOT_JUDGED = {"Bernoulli": "the values are random", "Constant": "its kernel makes text, which no case here has"}
RANDOM = "the mask of Dropout in training mode is random"
KNOWN = {"test_training_dropout" + x: RANDOM for x in ("", "_mask", "_default", "_default_mask")}  # case name -> reason
OLDEST = {"DFT": 20}  # operators whose kernel has the meaning of this opset alone: import rewrites older forms

K_INT, K_FLOAT, K_STRING, K_INTS, K_FLOATS, K_STRINGS, K_TENSOR = range(7)
SUB_BYTE = {ml_dtypes.int4: 4, ml_dtypes.uint4: 4, ml_dtypes.int2: 2, ml_dtypes.uint2: 2,
            ml_dtypes.float4_e2m1fn: 4, ml_dtypes.float6_e2m3fn: 6, ml_dtypes.float6_e3m2fn: 6}


class Tensor(C.Structure):
    _fields_ = [("dtype", C.c_int), ("rank", C.c_int), ("dims", C.c_int64 * 16), ("data", C.c_void_p), ("size", C.c_int64),
                ("kind", C.c_int)]


class Value(C.Union):
    _fields_ = [("i", C.c_int64), ("f", C.c_float), ("p", C.c_void_p)]


class Attr(C.Structure):
    _fields_ = [("name", C.c_char_p), ("kind", C.c_int), ("len", C.c_int64), ("v", Value)]


class Call(C.Structure):
    _fields_ = [("op", C.c_char_p), ("inputs", C.POINTER(C.POINTER(Tensor))), ("n_in", C.c_int), ("out", C.POINTER(Tensor)),
                ("n_out", C.c_int), ("attrs", C.POINTER(Attr)), ("n_attrs", C.c_int), ("arena", C.c_void_p), ("pool", C.c_void_p),
                ("error", C.c_char * 256)]


class Op(C.Structure):
    _fields_ = [("name", C.c_char_p), ("fn", C.CFUNCTYPE(C.c_int, C.POINTER(Call)))]


class Kernels:
    def __init__(self, path):
        self.lib = C.CDLL(path)
        self.lib.k_op_find.restype = C.POINTER(Op)
        self.lib.k_op_find.argtypes = [C.c_char_p]
        self.lib.dtype_from_onnx.argtypes = [C.c_int64]
        self.keep = []
        self.pool = None  # threads; None: the caller's alone

    def pack(self, a):
        """Elements as the bytes of a tensor: sub-byte types low bits first."""
        bits = SUB_BYTE.get(a.dtype.type)
        if bits is None:
            return np.ascontiguousarray(a).tobytes()
        codes = np.ascontiguousarray(a).reshape(-1).view(np.uint8) & ((1 << bits) - 1)
        stream = ((codes[:, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(-1)
        return np.packbits(stream, bitorder="little").tobytes()

    def unpack(self, raw, dtype, shape):
        n = int(np.prod(shape, dtype=np.int64))
        bits = SUB_BYTE.get(dtype.type)
        if bits is None:
            return np.frombuffer(raw, dtype=dtype, count=n).reshape(shape)
        stream = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")[: n * bits].reshape(n, bits)
        codes = (stream << np.arange(bits, dtype=np.uint8)).sum(axis=1).astype(np.uint8)
        if dtype.type in (ml_dtypes.int4, ml_dtypes.int2):
            sign = 1 << (bits - 1)
            return ((codes ^ sign).astype(np.int8) - sign).astype(dtype).reshape(shape)
        return codes.view(dtype).reshape(shape)

    def tensor(self, a):
        raw = C.create_string_buffer(self.pack(a) + b"\0" * 64)
        t = Tensor(self.lib.dtype_from_onnx(helper.np_dtype_to_tensor_dtype(a.dtype)), a.ndim, (C.c_int64 * 16)(*a.shape),
                   C.cast(raw, C.c_void_p), len(self.pack(a)))
        self.keep += [raw, t]
        return t

    def attr(self, a):
        v, kind, length = Value(), None, 0
        value = helper.get_attribute_value(a)
        if a.type == a.INT:
            kind, v.i = K_INT, value
        elif a.type == a.FLOAT:
            kind, v.f = K_FLOAT, value
        elif a.type == a.STRING:
            buf = C.create_string_buffer(value)
            self.keep.append(buf)
            kind, length, v.p = K_STRING, len(value), C.cast(buf, C.c_void_p).value
        elif a.type in (a.INTS, a.FLOATS):
            buf = ((C.c_int64 if a.type == a.INTS else C.c_float) * len(value))(*value)
            self.keep.append(buf)
            kind, length, v.p = K_INTS if a.type == a.INTS else K_FLOATS, len(value), C.cast(buf, C.c_void_p).value
        elif a.type == a.TENSOR:
            t = self.tensor(numpy_helper.to_array(value))
            kind, v.p = K_TENSOR, C.addressof(t)
        else:
            return None
        return Attr(a.name.encode(), kind, length, v)

    def run(self, node, inputs, expected):
        op = self.lib.k_op_find(node.op_type.encode())
        self.keep = []
        tensors = [None if x is None else self.tensor(x) for x in inputs]
        pointers = (C.POINTER(Tensor) * max(1, len(tensors)))()
        for i, t in enumerate(tensors):
            if t is not None:
                pointers[i] = C.pointer(t)
        outs = (Tensor * max(1, len(node.output)))()
        attrs = [x for x in map(self.attr, node.attribute) if x]
        arena = C.create_string_buffer(512)
        self.lib.arena_init(arena, None)
        call = Call(node.op_type.encode(), pointers, len(tensors), outs, len(node.output), (Attr * max(1, len(attrs)))(*attrs),
                    len(attrs), C.cast(arena, C.c_void_p), self.pool, b"")
        status = op.contents.fn(C.byref(call))
        try:
            if status:
                return f"status {status}: {call.error.decode()}"
            return self.judge(node, outs, expected)
        finally:
            self.lib.arena_free(arena)

    def judge(self, node, outs, expected):
        named = [(t, name) for t, name in zip(outs, node.output) if name]
        for (t, name), want in zip(named, expected):
            shape = tuple(t.dims[: t.rank])
            if t.dtype != self.lib.dtype_from_onnx(helper.np_dtype_to_tensor_dtype(want.dtype)) or shape != want.shape:
                return f"{name}: dtype {t.dtype} {shape}, expected {want.dtype} {want.shape}"
            got = self.unpack(C.string_at(t.data, t.size), want.dtype, shape)
            bf16 = want.dtype == ml_dtypes.bfloat16
            if want.dtype.kind in "fV" or want.dtype.type in SUB_BYTE or bf16 or "float" in want.dtype.name:
                wide = np.float64 if want.dtype == np.float64 else np.float32
                try:
                    np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=2**-6 if bf16 else 1e-3, atol=1e-7)
                except AssertionError as e:
                    return f"{name}: " + " ".join(str(e).split())[:200]
            elif not np.array_equal(got, want):
                return f"{name}: got {got.reshape(-1)[:8]}, expected {want.reshape(-1)[:8]}"
        return None


def as_array(x):
    """A value of a test as an array; None for sequences and optionals."""
    if isinstance(x, onnx.TensorProto):
        return numpy_helper.to_array(x)
    return np.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else None


def single_node(case, kernels):
    graph = case.model.graph
    if len(graph.node) != 1 or graph.initializer or not case.data_sets:
        return None
    node = graph.node[0]
    if node.domain not in ("", "ai.onnx") or not kernels.lib.k_op_find(node.op_type.encode()):
        return None
    opset = max(o.version for o in case.model.opset_import if o.domain in ("", "ai.onnx"))
    if node.op_type in NOT_JUDGED or opset < OLDEST.get(node.op_type, 0):
        return None
    inputs, outputs = case.data_sets[0]
    inputs, outputs = list(map(as_array, inputs)), list(map(as_array, outputs))
    if any(x is None or x.dtype.kind in "OUSc" for x in inputs + outputs):
        return None
    return node, inputs, outputs


def main():
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    kernels = Kernels(sys.argv[1])
    pattern = sys.argv[2] if len(sys.argv) > 2 else ""
    ran = failed = 0
    for case in load_model_tests(kind="node"):
        found = single_node(case, kernels) if pattern in case.name else None
        if not found:
            continue
        node, values, expected = found
        by_name = dict(zip((x.name for x in case.model.graph.input), values))
        inputs = [by_name[name] if name else None for name in node.input]
        why = kernels.run(node, inputs, expected)
        ran += 1
        if why and case.name not in KNOWN:
            failed += 1
            print(f"FAIL {case.name}: {why}")
    print(f"{ran} cases, {failed} failed")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
