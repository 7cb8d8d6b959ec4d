#!/usr/bin/env python3
"""Convolutions and pools made band by band, their maps passing through the memory of clusters, give the bits of whole maps."""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

RNG = np.random.default_rng(5)
# Launches that cost next to nothing beside memory, and little shared memory: bands pay for maps of any size.
TARGET = """inherit = mlu370-x4.target
name = small
l1.size = 96 KiB # source: a test (guess)
launch = 0.01 us # source: a test (guess)
hbm.bandwidth = 2 GB/s # source: a test (guess)
cluster.bandwidth = 1 GB/s # source: a test (guess)
"""


class Model:
    def __init__(self):
        self.nodes, self.weights = [], []

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op, *ins, **attrs):
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(ins), [out], **attrs))
        return out

    def codes(self, x):
        scale, zero = self.constant(np.float32(0.05)), self.constant(np.int8(0))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(self, x, cin, cout, k, stride=1, dilation=1, group=1, integer=False):
        shape, pad = (cout, cin // group, k, k), (k - 1) * dilation // 2
        if integer:
            w = self.add("DequantizeLinear", self.constant(RNG.integers(-100, 100, shape).astype(np.int8)),
                         self.constant(np.float32(0.002)), self.constant(np.int8(0)))
        else:
            w = self.constant((0.2 * RNG.standard_normal(shape)).astype(np.float32))
        bias = self.constant(RNG.standard_normal(cout).astype(np.float32))
        return self.add("Conv", x, w, bias, kernel_shape=[k, k], strides=[stride] * 2, dilations=[dilation] * 2, pads=[pad] * 4,
                        group=group)

    def save(self, path, y, shape):
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        graph = helper.make_graph(self.nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, shape)],
                                  [helper.make_tensor_value_info("y", T.FLOAT, None)], self.weights)
        onnx.save(onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)],
                                                                      ir_version=9)), path)


def plain(m, c):
    """Windows of several heights, a stride, padding, a pool between."""
    x = m.add("Relu", m.conv("x", c, 32, 3))
    x = m.add("Relu", m.conv(x, 32, 32, 3, dilation=2))
    x = m.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return m.conv(m.conv(x, 32, 48, 3), 48, 32, 1)


def depthwise(m, c):
    x = m.conv("x", c, 32, 3, stride=2)
    for dilation in (1, 2):
        x = m.conv(m.conv(x, 32, 32, 3, dilation=dilation, group=32), 32, 32, 1)
    return x


def residual(m, c):
    """Bytes, with a map that is added: codes and floats of a result have different readers."""
    x = m.add("Relu", m.conv(m.codes("x"), c, 64, 3, integer=True))
    for _ in range(2):
        z = m.codes(m.add("Relu", m.conv(m.codes(x), 64, 32, 1, integer=True)))
        z = m.codes(m.add("Relu", m.conv(z, 32, 32, 3, integer=True)))
        x = m.add("Relu", m.add("Add", m.conv(z, 32, 64, 1, integer=True), x))
    return x


# maker, channels, images, rows, columns, precision
CASES = [(plain, 5, 1, 53, 44, "fp16"), (plain, 7, 16, 29, 38, "fp16"), (depthwise, 16, 16, 39, 31, "keep"),
         (residual, 16, 1, 44, 31, "keep"), (residual, 16, 16, 31, 27, "keep")]


def outputs(npuc, d, target, precision):
    support.must([npuc, "compile", d / "m.onnx", "--target", target, "--precision", precision, "-o", d / "plan", "--quiet"])
    report = support.must([npuc, "run", d / "plan", "--input", f"x={d}/x.npy", "--output-dir", d / "out", "--mode", "both", "--json",
                           "--check-hazards"])
    return np.load(d / "out" / "y.npy"), len(json.loads(report)["steps"])


def check(npuc, make, channels, images, rows, columns, precision):
    with tempfile.TemporaryDirectory() as name:
        d, m = pathlib.Path(name), Model()
        (d / "small.target").write_text(TARGET)
        shape = [images, channels, rows, columns]
        m.save(d / "m.onnx", make(m, channels), shape)
        np.save(d / "x.npy", RNG.standard_normal(shape).astype(np.float32))
        want, whole = outputs(npuc, d, "mlu370-x4", precision)
        got, bands = outputs(npuc, d, d / "small.target", precision)
        where = f"{make.__name__}, {images} images, {precision}"
        assert bands > whole, f"{where}: {bands} steps, no bands beside {whole}"
        assert got.tobytes() == want.tobytes(), f"{where}: other bits in bands"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--npuc", required=True)
    parser.add_argument("--root", help="not needed")
    args = parser.parse_args()
    return support.run_cases([(f"{case[0].__name__} {case[2]}", case) for case in CASES], lambda case: check(args.npuc, *case))


if __name__ == "__main__":
    sys.exit(main())
