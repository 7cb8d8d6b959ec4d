#!/usr/bin/env python3
"""Units of a core work side by side: busy shares of a large product, alone and with vector operators behind it."""
import argparse
import json
import pathlib
import sys
import tempfile

import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

F16 = TensorProto.FLOAT16
PRODUCT = [helper.make_node("MatMul", ["x", "w"], ["p"])]
TAIL = [helper.make_node("Mul", ["p", "row"], ["s"]), helper.make_node("Sigmoid", ["s"], ["g"]), helper.make_node("Mul", ["s", "g"], ["y"])]
GATED = PRODUCT + [helper.make_node("MatMul", ["x", "v"], ["u"]), helper.make_node("Sigmoid", ["p"], ["g"]),
                   helper.make_node("Mul", ["p", "g"], ["a"]), helper.make_node("Mul", ["a", "u"], ["y"])]


def estimate(npuc, folder, nodes, inputs, result, weights, target):
    """Seconds of a call and shares of it that units are busy; weights have no contents."""
    def info(name, shape):
        return helper.make_tensor_value_info(name, F16, shape)
    graph = helper.make_graph(nodes, "g", [info(*i) for i in inputs], [info(*result)])
    for name, shape in weights:
        t = TensorProto(name=name, data_type=F16, dims=shape, data_location=TensorProto.EXTERNAL)
        t.external_data.add(key="location", value="absent.bin")
        graph.initializer.append(t)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    r = json.loads(support.must([npuc, "estimate", path, "--target", target, "--json"]))
    return r["total_us"], {unit: us / r["total_us"] for unit, us in r["pipes_us"].items()}


def check_plain(npuc, folder, target):
    n = 4096
    _, busy = estimate(npuc, folder, PRODUCT, [("x", [n, n]), ("w", [n, n])], ("p", [n, n]), [], target)
    assert busy["mac"] > 0.7, busy
    assert busy["mte2"] + busy["mte1"] + busy["mac"] + busy["fixp"] > 1.9, f"loads, copies, products and stores in turn: {busy}"


def check_tail(npuc, folder, target):
    """The vector operators cost little time beside the product, and are no launch of their own."""
    n = 2048
    given = [("x", [n, n])], [("w", [n, n])]
    plain, _ = estimate(npuc, folder, PRODUCT, given[0], ("p", [n, n]), given[1], target)
    whole, busy = estimate(npuc, folder, PRODUCT + TAIL, given[0] + [("row", [n])], ("y", [n, n]), given[1], target)
    assert busy["vec"] > 0 and whole < 1.15 * plain, f"{plain} us without, {whole} us with operators behind: {busy}"


def check_gated(npuc, folder, target):
    """One row: gate, up and what is between them are one launch, which takes the time of reading the weights."""
    k, n = 1024, 4096
    one, _ = estimate(npuc, folder, PRODUCT, [("x", [1, k])], ("p", [1, n]), [("w", [k, n])], target)
    two, _ = estimate(npuc, folder, GATED, [("x", [1, k])], ("y", [1, n]), [("w", [k, n]), ("v", [k, n])], target)
    assert two < 1.8 * one, f"{one} us for one product, {two} us for two and the operators behind"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--npuc", type=pathlib.Path, required=True)
    p.add_argument("--root", type=pathlib.Path, help="of the project; not used")
    o = p.parse_args()
    cases = [(f"{f.__name__} on {t}", (f, t)) for f in (check_plain, check_tail, check_gated) for t in ("ascend-910b1", "ascend-950pr")]

    def work(case):
        with tempfile.TemporaryDirectory() as folder:
            case[0](o.npuc.resolve(), pathlib.Path(folder), case[1])
    return support.run_cases(cases, work)


if __name__ == "__main__":
    sys.exit(main())
