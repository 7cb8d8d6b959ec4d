#!/usr/bin/env python3
"""--value: an input of one number that is decided at compile time. A decoder whose branches differ by a flag becomes one with a
cache in place, and the flag no input."""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

# --value, exit code, what the message holds
WRONG = [("flag=2", 2, "bool"), ("flag=yes", 2, "flag=yes"), ("nothing=1", 2, "no such input"), ("x=1", 2, "one number"),
         ("count=1.5", 2, "i64"), ("count=99999999999999999999", 2, "i64"), ("count=nan", 2, "count=nan"), ("flag", 2, "INPUT=NUMBER")]


def save(path):
    info, node = helper.make_tensor_value_info, helper.make_node
    rows = info("rows", T.FLOAT, ["b", "t", 8])
    grown = helper.make_graph([node("Concat", ["past", "x"], ["rows"], axis=1)], "grown", [], [rows])
    fresh = helper.make_graph([node("Identity", ["x"], ["rows"])], "fresh", [], [rows])
    nodes = [node("If", ["flag"], ["present"], then_branch=grown, else_branch=fresh), node("Cast", ["count"], ["c"], to=T.FLOAT),
             node("ReduceSum", ["present", "axes"], ["s"], keepdims=0), node("Mul", ["s", "c"], ["y"])]
    inputs = [info("x", T.FLOAT, ["b", "n", 8]), info("past", T.FLOAT, ["b", "p", 8]), info("flag", T.BOOL, [1]), info("count", T.INT64, [])]
    outputs = [info("y", T.FLOAT, ["b", 8]), info("present", T.FLOAT, ["b", "t", 8])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [helper.make_tensor("axes", T.INT64, [1], [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", help="unused")
    npuc = ap.parse_args().npuc
    rng = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        d = pathlib.Path(folder)
        save(d / "m.onnx")
        x, past = (rng.integers(-9, 9, shape).astype(np.float32) for shape in ((2, 1, 8), (2, 3, 8)))
        np.save(d / "x.npy", x)
        np.save(d / "past.npy", past)
        for flag in 0, 1:
            plan = d / f"{flag}.plan"
            support.must([npuc, "compile", d / "m.onnx", "-o", plan, "--quiet", "--value", f"flag={flag}", "--value", "count=3"])
            names = list(json.loads(support.must([npuc, "inspect", plan, "--json"]))["inputs"])
            assert names == ["x", "past"], names
            support.must([npuc, "run", plan, "--input", f"x={d}/x.npy", "--input", f"past={d}/past.npy", "--output-dir", d / "out"])
            want = np.concatenate((past, x), 1) if flag else x
            assert np.array_equal(np.load(d / "out" / "present.npy"), want), flag
            assert np.array_equal(np.load(d / "out" / "y.npy"), 3 * want.sum(1)), flag
        for value, code, text in WRONG:
            done = support.call([npuc, "compile", d / "m.onnx", "-o", d / "wrong.plan", "--quiet", "--value", value])
            assert done.returncode == code and text in support.last_line(done.stderr), (value, done.returncode, done.stderr)
            assert not (d / "wrong.plan").exists(), value
    print(f"2 plans, {len(WRONG)} refusals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
