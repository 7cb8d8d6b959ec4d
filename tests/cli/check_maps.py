#!/usr/bin/env python3
"""Feature maps in the order of the matrix unit give the bits of maps in the order of their dimensions."""
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

RNG = np.random.default_rng(5)
TARGETS = ["mlu370-x4", "ascend-910b1"]
PRECISIONS = ["keep", "fp16"]


class Net:
    """Nodes in order; every step is named after its result."""

    def __init__(self):
        self.nodes, self.weights, self.n = [], [], 0

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array((RNG.standard_normal(shape) / 4).astype(np.float32), name))
        return name

    def op(self, kind, *ins, **attributes):
        self.n += 1
        self.nodes.append(helper.make_node(kind, list(ins), [f"t{self.n}"], **attributes))
        return f"t{self.n}"

    def conv(self, x, cin, cout, k, stride=1, group=1, pad=None):
        pad = k // 2 if pad is None else pad
        return self.op("Conv", x, self.weight(cout, cin // group, k, k), self.weight(cout), strides=[stride] * 2,
                       kernel_shape=[k, k], pads=[pad] * 4, group=group)


def residual(net):
    a = net.op("MaxPool", net.op("Relu", net.conv("x", 3, 32, 7, 2)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    b = net.op("Relu", net.conv(a, 32, 16, 1))
    c = net.conv(net.op("Relu", net.conv(b, 16, 16, 3)), 16, 64, 1)
    s = net.op("Relu", net.op("Add", c, net.conv(a, 32, 64, 1)))
    d = net.op("Concat", net.op("Sigmoid", net.conv(s, 64, 48, 3, 2)), net.conv(s, 64, 16, 1, 2), axis=1)
    return net.op("Flatten", net.op("GlobalAveragePool", d), axis=1)


def odd_channels(net):
    """Channels that fill no block: what lies in the filling must stay without effect, through 1/x, exp and log as well."""
    a = net.op("Exp", net.op("Tanh", net.conv("x", 3, 20, 3)))
    b = net.op("Div", net.conv(a, 20, 20, 3), a)
    c = net.op("Mul", net.conv(net.op("Log", net.op("Abs", b)), 20, 13, 3), net.weight(1, 13, 1, 1))
    d = net.op("Add", net.op("Reciprocal", net.op("Exp", net.op("Tanh", c))), net.weight(13, 1, 1))
    return net.op("AveragePool", net.conv(d, 13, 5, 1), kernel_shape=[2, 2], strides=[2, 2])


def separable(net):
    a = net.op("Clip", net.conv("x", 3, 32, 3, 2), numpy_const(net, 0.0), numpy_const(net, 6.0))
    b = net.op("Clip", net.conv(a, 32, 32, 3, 1, 32), numpy_const(net, 0.0), numpy_const(net, 6.0))
    c = net.conv(b, 32, 24, 1)
    d = net.conv(net.op("HardSwish", net.conv(net.op("HardSwish", net.conv(c, 24, 72, 1)), 72, 72, 5, 2, 72)), 72, 24, 1)
    e = net.op("GlobalAveragePool", net.conv(d, 24, 40, 1))
    gate = net.op("HardSigmoid", net.conv(net.op("Relu", net.conv(e, 40, 8, 1)), 8, 24, 1))
    return net.conv(net.op("Mul", d, gate), 24, 32, 3, 1, 4)


def joined(net):
    """Concats of channels whose operands are convolutions: alone, with relu, grouped, read elsewhere, joined twice, and a pooled map."""
    a = net.op("Relu", net.conv("x", 3, 24, 3, 2))
    b, c = net.op("Relu", net.conv(a, 24, 40, 1)), net.conv(a, 24, 36, 3, 1, 4)
    d = net.op("Concat", b, c, net.op("MaxPool", a, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4), axis=1)
    e, f = net.conv(d, 100, 16, 1), net.op("Relu", net.conv(d, 100, 20, 3))
    g = net.op("Concat", e, net.conv(d, 100, 7, 1), f, axis=1)
    h = net.conv(f, 20, 9, 1)
    return net.conv(net.op("Concat", net.op("Concat", g, h, axis=1), h, net.conv(g, 43, 11, 3), axis=1), 72, 8, 1)


def numpy_const(net, v):
    name = f"c{len(net.weights)}"
    net.weights.append(numpy_helper.from_array(np.array(v, np.float32), name))
    return name


def save(path, make, shape):
    net = Net()
    out = make(net)
    net.nodes.append(helper.make_node("Identity", [out], ["y"]))
    graph = helper.make_graph(net.nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, ["n", *shape[1:]])],
                              [helper.make_tensor_value_info("y", T.FLOAT, None)], net.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def run(npuc, d, x, options):
    np.save(d / "x.npy", x)
    support.must([npuc, "compile", d / "m.onnx", "-o", d / "plan", "--quiet", *options])
    support.must([npuc, "run", d / "plan", "--input", f"x={d}/x.npy", "--output-dir", d / "out", "--check-hazards"])
    return np.load(d / "out" / "y.npy")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--npuc", required=True)
    args.add_argument("--root", help="unused")
    npuc = args.parse_args().npuc
    failed = 0
    for make in (residual, odd_channels, separable, joined):
        for shape in ((1, 3, 37, 45), (3, 3, 16, 32)):
            known = ["-D", f"n={shape[0]}"] if make is joined else []
            x = RNG.standard_normal(shape).astype(np.float32)
            with tempfile.TemporaryDirectory() as folder:
                d = pathlib.Path(folder)
                save(d / "m.onnx", make, shape)
                for target in TARGETS:
                    for precision in PRECISIONS:
                        options = ["--target", target, "--precision", precision, *known]
                        plain, laid = (run(npuc, d, x, options + o) for o in (["--plain-maps"], []))
                        if plain.tobytes() != laid.tobytes() or not np.isfinite(plain).all():
                            failed += 1
                            print(f"{make.__name__} {shape} {target} {precision}: results differ")
    print(f"{failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
