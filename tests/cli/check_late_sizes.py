#!/usr/bin/env python3
"""Expand where only the run tells which axes are repeated: one plan for all cases, and a message where sizes do not fit."""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

RNG = np.random.default_rng(3)
# sizes of the result, sizes of what is expanded, does it fit
CASES = [((3, 5), (3, 5), True), ((3, 5), (1, 5), True), ((3, 5), (3, 1), True), ((3, 5), (1, 1), True), ((3, 500), (3, 1), True),
         ((300, 7), (300, 1), True), ((64, 1), (64, 1), True), ((3, 5), (2, 5), False), ((3, 5), (3, 4), False), ((3, 5), (5, 5), False)]


def save(path):
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Expand", ["m", "s"], ["e"]), helper.make_node("Add", ["x", "e"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x", T.FLOAT, ["a", "b"]), info("m", T.FLOAT, ["c", "d"])], [info("y", T.FLOAT, ["a", "b"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", help="unused")
    npuc = ap.parse_args().npuc
    with tempfile.TemporaryDirectory() as folder:
        d = pathlib.Path(folder)
        save(d / "m.onnx")
        report = support.must([npuc, "check", d / "m.onnx", "--target", "ascend-910b1"])
        assert "2 of 2 nodes on the NPU" in report, report
        support.must([npuc, "compile", d / "m.onnx", "--target", "ascend-910b1", "-o", d / "plan", "--quiet"])
        for whole, part, fits in CASES:
            x, m = (RNG.standard_normal(shape).astype(np.float32) for shape in (whole, part))
            np.save(d / "x.npy", x)
            np.save(d / "part.npy", m)
            done = support.call([npuc, "run", d / "plan", "--input", f"x={d}/x.npy", "--input", f"m={d}/part.npy",
                                 "--output-dir", d / "out", "--check-hazards"])
            assert (done.returncode == 0) == fits, (whole, part, done.stderr)
            if fits:
                assert np.array_equal(np.load(d / "out" / "y.npy"), x + m), (whole, part)
            else:
                assert done.returncode == 3 and "Expand" in support.last_line(done.stderr), done.stderr
    print(f"{len(CASES)} cases passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
