#!/usr/bin/env python3
"""Inputs and outputs in blocked layouts give the bits of plain ones; permutations of short runs are numpy's."""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

RNG = np.random.default_rng(11)
TYPES = [(np.float16, T.FLOAT16), (np.float32, T.FLOAT), (np.int8, T.INT8), (np.int64, T.INT64)]
PERMUTATIONS = [((3, 50, 70), (0, 2, 1)), ((40, 33, 16), (1, 0, 2)), ((5, 1, 17, 9, 32), (3, 2, 0, 1, 4)),
                ((130, 260), (1, 0)), ((7, 20, 3, 16), (0, 2, 1, 3)), ((64, 3, 1, 200), (3, 1, 2, 0)),
                ((2, 0, 5), (2, 1, 0)), ((300, 5), (1, 0)), ((2, 17, 19, 23), (2, 3, 0, 1))]
# channels, results, window, type of the result: with a cast that belongs to the convolution, with channels to fill up
CONVOLUTIONS = [(32, 40, 3, T.FLOAT16), (32, 40, 1, T.FLOAT), (20, 24, 3, T.FLOAT16)]


def save(path, nodes, ins, outs, weights=()):
    graph = helper.make_graph(nodes, "g", ins, outs, list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def run(npuc, d, x, options, target):
    np.save(d / "x.npy", np.ascontiguousarray(x))
    support.must([npuc, "compile", d / "m.onnx", "--target", target, "-o", d / "plan", "--quiet", *options])
    support.must([npuc, "run", d / "plan", "--input", f"x={d}/x.npy", "--output-dir", d / "out", "--check-hazards"])
    return np.load(d / "out" / "y.npy")


def fill(a, axis, to):
    pads = [(0, -a.shape[i] % to if i == axis else 0) for i in range(a.ndim)]
    return np.pad(a, pads)


def lines(a):
    c0 = 32 // a.itemsize
    a = fill(a, 1, c0)
    return np.moveaxis(a.reshape(a.shape[0], -1, c0, *a.shape[2:]), 2, -1)


def fractals(a):
    c0 = 32 // a.itemsize
    a = fill(fill(a, 0, 16), 1, c0)
    return a.reshape(a.shape[0] // 16, 16, -1, c0).transpose(2, 0, 1, 3)


def permutations(npuc, d):
    for i, (shape, perm) in enumerate(PERMUTATIONS):
        dtype, onnx_type = TYPES[i % len(TYPES)]
        names = [f"d{k}" if i % 2 and k + 1 < len(shape) else v for k, v in enumerate(shape)]
        save(d / "m.onnx", [helper.make_node("Transpose", ["x"], ["y"], perm=perm)],
             [helper.make_tensor_value_info("x", onnx_type, names)],
             [helper.make_tensor_value_info("y", onnx_type, [names[p] for p in perm])])
        x = RNG.integers(-100, 100, shape).astype(dtype)
        for target in ("ascend-910b1", "ascend-310p3"):
            yield f"permutation {shape} {perm} {target}", run(npuc, d, x, [], target), x.transpose(perm)


def convolutions(npuc, d):
    for c, k, window, to in CONVOLUTIONS:
        w = numpy_helper.from_array((RNG.standard_normal((k, c, window, window)) / 8).astype(np.float16), "w")
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[window // 2] * 4),
                 helper.make_node("Cast" if to == T.FLOAT else "Identity", ["c"], ["y"],
                                  **({"to": to} if to == T.FLOAT else {}))]
        save(d / "m.onnx", nodes, [helper.make_tensor_value_info("x", T.FLOAT16, [2, c, 9, 11])],
             [helper.make_tensor_value_info("y", to, [2, k, 9, 11])], [w])
        x = RNG.standard_normal((2, c, 9, 11)).astype(np.float16)
        plain = run(npuc, d, x, [], "ascend-910b1")
        blocked = run(npuc, d, lines(x), ["--input-layout", "x=NC1HWC0", "--output-layout", "y=NC1HWC0"], "ascend-910b1")
        yield f"convolution {c} {k} {window}", blocked, lines(plain)


def copies(npuc, d):
    save(d / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])],
         [helper.make_tensor_value_info("x", T.FLOAT16, [50, 70])], [helper.make_tensor_value_info("y", T.FLOAT16, [50, 70])])
    x = RNG.standard_normal((50, 70)).astype(np.float16)
    yield "ND to NZ", run(npuc, d, x, ["--output-layout", "y=NZ"], "ascend-910b1"), fractals(x)
    yield "NZ to ND", run(npuc, d, fractals(x), ["--input-layout", "x=NZ"], "ascend-910b1"), x


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", help="unused")
    a = ap.parse_args()
    total = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        d = pathlib.Path(folder)
        for cases in (permutations, convolutions, copies):
            for name, got, want in cases(a.npuc, d):
                total += 1
                if got.shape != want.shape or got.dtype != want.dtype or not np.array_equal(got, want):
                    failed += 1
                    print(f"FAILED {name}")
    print(f"{total - failed} of {total} cases agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
