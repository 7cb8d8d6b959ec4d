#!/usr/bin/env python3
"""Schemes of npuc quantize on a small network: on the cores of several machines and in the reference interpreter, the same bits.

    check_schemes.py --npuc NPUC --npuc-opt NPUC_OPT

The network is a norm, a product, a gate and another product, in f32 or f16, with rows of any number. For each scheme and machine: the plan's
result equals the interpreter's on the graph that the plan was made of; f32 results are equal on all machines; the error against the network
without codes is what the format allows; the programs use the units that they should.
"""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import must, run_cases

MACHINES = ["ascend-950pr", "ascend-910b1", "mlu370-x4"]
ROWS, WIDTHS = 21, (128, 96, 64)
# scheme: relative error allowed, what programs for a machine with units for it hold, what others hold
SCHEMES = {
    "fp8": (0.07, "f8e4m3fn", "dequant"), "hif8": (0.07, "hif8", "dequant"), "mxfp8": (0.08, "mac_mx", "dequant"),
    "mxfp8-ceil": (0.08, "mac_mx", "dequant"),
    "mxfp6": (0.06, "dequant", "dequant"), "mxfp4": (0.22, "dequant", "dequant"), "nvfp4": (0.18, "dequant", "dequant"),
    "w4a8-g32": (0.15, "dequant", "dequant"), "w8a16i": (0.015, "dequant", "dequant"), "w8a8-dynamic": (0.03, "i8", "i8"),
}
TYPES = {"f32": (T.FLOAT, np.float32), "f16": (T.FLOAT16, np.float16)}


def network(name):
    kind, dtype = TYPES[name]
    rng = np.random.default_rng(5)
    k, n, m = WIDTHS
    weights = {"w": rng.standard_normal((k, n)) * 0.1, "v": rng.standard_normal((n, m)) * 0.1, "g": rng.uniform(0.5, 1.5, k)}
    constants = [helper.make_tensor(key, kind, value.shape, value.astype(dtype).tobytes(), raw=True) for key, value in weights.items()]
    nodes = [helper.make_node("RMSNormalization", ["x", "g"], ["n"], axis=-1, epsilon=1e-5, name="norm"),
             helper.make_node("MatMul", ["n", "w"], ["h"], name="up"), helper.make_node("Sigmoid", ["h"], ["s"]),
             helper.make_node("Mul", ["h", "s"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["y"], name="down")]
    graph = helper.make_graph(nodes, "network", [helper.make_tensor_value_info("x", kind, ["m", k])],
                              [helper.make_tensor_value_info("y", kind, ["m", m])], constants)
    x = rng.standard_normal((ROWS, k)) * 3
    x[3] = 0 # a row without a largest element
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11), x.astype(dtype)


def result(folder):
    return np.load(folder / "y.npy")


def check(options, case):
    scheme, name = case
    allowed, native, other = SCHEMES[scheme]
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        for folder in ("plain", "graph", "cores"):
            (d / folder).mkdir()
        model, x = network(name)
        onnx.save(model, d / "m.onnx")
        np.save(d / "x.npy", x)
        given = ["--input", f"x={d}/x.npy"]
        must([options.npuc_opt, d / "m.onnx", "--eval", *given, "--output-dir", d / "plain", "--no-output"])
        must([options.npuc, "quantize", d / "m.onnx", "--scheme", scheme, "--narrow-last", "-o", d / "r.recipe", "--quiet"])
        plain, seen = result(d / "plain").astype(np.float64), {}
        for machine in MACHINES if name == "f32" else MACHINES[:1]:
            same = [d / "m.onnx", "--recipe", d / "r.recipe", "--target", machine]
            must([options.npuc_opt, "-p", "default", *same, "--eval", *given, "--output-dir", d / "graph", "--no-output"])
            must([options.npuc, "compile", *same, "-o", d / "m.plan", "--quiet"])
            must([options.npuc, "run", d / "m.plan", *given, "--output-dir", d / "cores", "--check-hazards"])
            text = must([options.npuc, "inspect", d / "m.plan", "--what", "kernels"]).lower()
            wanted = native if machine == MACHINES[0] else other
            assert wanted in text, f"{machine}: no {wanted} in its programs"
            seen[machine] = result(d / "cores")
            assert seen[machine].tobytes() == result(d / "graph").tobytes(), f"{machine}: the cores differ from the interpreter"
            error = np.linalg.norm(seen[machine].astype(np.float64) - plain) / np.linalg.norm(plain)
            assert error < allowed, f"{machine}: a relative error of {error:.3f}, expected less than {allowed}"
        if name == "f32":
            assert len({y.tobytes() for y in seen.values()}) == 1, "machines differ"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True)
    parser.add_argument("--npuc-opt", required=True)
    options = parser.parse_args()
    return run_cases([(f"{scheme} {name}", (scheme, name)) for scheme in SCHEMES for name in TYPES], lambda case: check(options, case))


if __name__ == "__main__":
    sys.exit(main())
