"""Convolutions, pooling, resizing and normalisations with random shapes and attributes against onnxruntime, and with and
without SIMD, by one thread and by three (equal bits).

usage: test_window_ops.py LIBRARY [ROUNDS]; exit code 1 when a case fails, 77 when onnxruntime is not installed."""
import random
import sys
import types

import numpy as np
from onnx import helper

import test_node_ops as nodes

try:
    import onnxruntime as ort
except ImportError:
    sys.exit(77)



def values(rng, shape, kind="f"):
    if kind in "ui":
        return rng.integers(0 if kind == "u" else -128, 256 if kind == "u" else 128, shape).astype(
            np.uint8 if kind == "u" else np.int8)
    return rng.standard_normal(shape).astype(np.float32 if kind == "f" else np.float64)


def window(pick, axes, small=False):
    """Attributes of a window of that many axes and an input large enough for it."""
    kernel = [pick.randint(1, 3) for _ in range(axes)]
    a = {"kernel_shape": kernel, "strides": [pick.randint(1, 3) for _ in range(axes)]}
    if not small:
        a["dilations"] = [pick.randint(1, 2) for _ in range(axes)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, a.get("dilations", [1] * axes))]
    how = pick.choice(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
    if how == "NOTSET":
        a["pads"] = [pick.randint(0, k - 1) for k in kernel + kernel]
    elif all(d == 1 for d in a.get("dilations", [1])):
        a["auto_pad"] = how
        if how.startswith("SAME"):  # beyond the kernel the total is negative, where runtimes differ
            a["strides"] = [min(s, k) for s, k in zip(a["strides"], kernel)]
    return a, [e + pick.randint(0, 6) for e in extent]


def conv(pick, rng):
    axes, group = pick.randint(1, 3), pick.choice([1, 1, 2, 3])
    a, size = window(pick, axes)
    a["group"] = group
    x = values(rng, [pick.randint(1, 2), group * pick.randint(1, 3), *size])
    w = values(rng, [group * pick.randint(1, 3), x.shape[1] // group, *a["kernel_shape"]])
    bias = [values(rng, [w.shape[0]])] if pick.random() < 0.5 else []
    return "Conv", a, [x, w, *bias], 1


def conv_transpose(pick, rng):
    axes, group = pick.randint(1, 3), pick.choice([1, 1, 2, 3])
    a, size = window(pick, axes)
    a["group"] = group
    a["auto_pad"] = "NOTSET"
    a["strides"] = [max(s, 2) for s in a["strides"]]
    a["output_padding"] = [pick.randint(0, 1) for _ in range(axes)]
    x = values(rng, [pick.randint(1, 2), group * pick.randint(1, 3), *size])
    w = values(rng, [x.shape[1], pick.randint(1, 3), *a["kernel_shape"]])
    bias = [values(rng, [w.shape[1] * group])] if pick.random() < 0.5 else []
    return "ConvTranspose", a, [x, w, *bias], 1


def conv_integer(pick, rng):
    a, size = window(pick, 2)
    x, w = values(rng, [2, 3, *size], "u"), values(rng, [4, 3, *a["kernel_shape"]], "u")
    return "ConvInteger", a, [x, w, values(rng, [], "u"), values(rng, [], "u")], 1


def qlinear_conv(pick, rng):
    a, size = window(pick, 2)
    kind = pick.choice("ui")
    x, w = values(rng, [1, 4, *size], kind), values(rng, [5, 4, *a["kernel_shape"]], kind)
    scales = (rng.random(5) * 0.02 + 0.01).astype(np.float32)
    bias = rng.integers(-500, 500, 5).astype(np.int32)
    zero = np.zeros(5, w.dtype) if kind == "i" else np.full(5, 100, w.dtype)
    return "QLinearConv", a, [x, np.float32(0.05), values(rng, [], kind), w, scales, zero, np.float32(0.7),
                              values(rng, [], kind), bias], 1


def pool(op):
    def make(pick, rng):
        axes = pick.randint(1, 3)
        a, size = window(pick, axes)
        if "auto_pad" not in a:
            a["ceil_mode"] = pick.randint(0, 1)
        if op == "AveragePool":
            a["count_include_pad"] = pick.randint(0, 1)
        if op == "LpPool":
            a["p"] = pick.randint(1, 3)
        if op == "MaxPool":
            a["storage_order"] = pick.randint(0, 1)
        kind = pick.choice("fu") if op == "MaxPool" else "f"
        return op, a, [values(rng, [2, 3, *size], kind)], 1 if op != "MaxPool" or kind == "u" else pick.randint(1, 2)
    return make


def resize(pick, rng):
    mode = pick.choice(["nearest", "linear", "cubic"])
    a = {"mode": mode, "coordinate_transformation_mode":
         pick.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])}
    if mode == "nearest":
        a["nearest_mode"] = pick.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
    if mode == "cubic":
        a["exclude_outside"] = pick.randint(0, 1)
    x = values(rng, [2, 3, pick.randint(2, 9), pick.randint(2, 9)])
    sizes = np.array([2, 3, pick.randint(2, 20), pick.randint(2, 20)], dtype=np.int64)
    if mode != "nearest" and pick.random() < 0.3 and a["coordinate_transformation_mode"] == "half_pixel":
        a["antialias"] = 1
    return "Resize", a, [x, None, None, sizes], 1


def norm(op):
    def make(pick, rng):
        c = pick.choice([2, 4, 6])
        axes = 2 if op == "LRN" else pick.randint(1, 3)
        x = values(rng, [2, c, *[pick.randint(1, 9) for _ in range(axes)]])
        per_channel = [values(rng, [c]) for _ in range(4)]
        per_channel[3] = np.abs(per_channel[3])
        return {"BatchNormalization": (op, {"epsilon": 1e-3}, [x, *per_channel], 1),
                "InstanceNormalization": (op, {"epsilon": 1e-3}, [x, *per_channel[:2]], 1),
                "GroupNormalization": (op, {"num_groups": c // 2}, [x, *per_channel[:2]], 1),
                "LRN": (op, {"size": pick.choice([1, 3, 5]), "alpha": 0.1, "bias": 1.5}, [x], 1),
                "LpNormalization": (op, {"axis": pick.randint(0, 2), "p": pick.randint(1, 2)}, [x], 1)}[op]
    return make


CASES = [conv, conv, conv_transpose, conv_integer, qlinear_conv, pool("MaxPool"), pool("AveragePool"), pool("LpPool"), resize,
         norm("BatchNormalization"), norm("InstanceNormalization"), norm("GroupNormalization"), norm("LRN"),
         norm("LpNormalization")]


def reference(op, attrs, inputs, n_out):
    """What onnxruntime computes; None when it refuses the case."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(n_out)], **attrs)
    given = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
             for n, x in zip(names, inputs) if n]
    outs = [helper.make_empty_tensor_value_info(y) for y in node.output]
    model = helper.make_model(helper.make_graph([node], "g", given, outs), ir_version=10,
                              opset_imports=[helper.make_opsetid("", 21)])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return node, session.run(None, {n: x for n, x in zip(names, inputs) if n})
    except Exception:  # kernels onnxruntime lacks
        return None


def judge(got, want):
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype} {got.shape}, expected {want.dtype} {want.shape}"
    if want.dtype.kind == "f":
        return None if np.allclose(got, want, rtol=1e-4, atol=2e-5) else f"largest difference {np.abs(got - want).max()}"
    off = np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0)
    return None if off == 0 else f"off by {off}"


class Runner(nodes.Kernels):
    """Keeps the outputs instead of judging them."""
    def judge(self, node, outs, expected):
        self.got = [self.unpack(nodes.C.string_at(t.data, t.size), w.dtype, tuple(t.dims[: t.rank]))
                    for t, w in zip(outs, expected)]


def run_case(kernels, case):
    op, attrs, inputs, n_out = case
    inputs = [None if x is None else np.asarray(x) for x in inputs]
    found = reference(op, attrs, inputs, n_out)
    if found is None:
        return "skipped"
    node, want = found
    for level, pool in enumerate((kernels.threads, None, None)):  # enum k_simd_level
        kernels.lib.k_simd_limit(level)
        kernels.pool = pool
        why = kernels.run(node, inputs, want)
        if why:
            return why
        got = [g.copy() for g in kernels.got]
        if level == 0:
            first = got
        if any(a.tobytes() != b.tobytes() for a, b in zip(first, got)):
            return "bits depend on SIMD or threads"
    return next((w for w in map(judge, got, want) if w), None)


def main():
    kernels = Runner(sys.argv[1])
    kernels.lib.k_simd_limit.argtypes = [nodes.C.c_int]
    kernels.lib.pool_new.restype = nodes.C.c_void_p
    kernels.threads = kernels.lib.pool_new(3)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    failed, ran = 0, types.SimpleNamespace(done=0, skipped=0)
    for seed in range(rounds):
        for make in CASES:
            case = make(random.Random(f"{seed}-{CASES.index(make)}"), np.random.default_rng(seed))
            why = run_case(kernels, case)
            ran.skipped += why == "skipped"
            ran.done += why != "skipped"
            if why and why != "skipped":
                failed += 1
                print(f"FAIL {case[0]} {case[1]} {[getattr(x, 'shape', None) for x in case[2]]}: {why}")
    print(f"{ran.done} cases, {ran.skipped} that onnxruntime refuses, {failed} failed")
    return 1 if failed or not ran.done else 0


if __name__ == "__main__":
    sys.exit(main())
