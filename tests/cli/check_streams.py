#!/usr/bin/env python3
"""Which operands pass by L2: those streamed once that it could not hold, when it holds the results; and --force l2=."""
import argparse
import json
import pathlib
import sys
import tempfile

import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

TARGET = "ascend-910b1"  # 192 MiB of L2


def save(path, rows, ins):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [rows, 8192]) for n in [*ins, "y"]]
    graph = helper.make_graph([helper.make_node("Add", [ins[0], ins[-1]], ["y"])], "g", values[:-1], values[-1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def estimate(npuc, model, *options):
    return json.loads(support.must([npuc, "estimate", model, "--target", TARGET, "--json", *options]))["total_us"]


def hints(npuc, d, model, *options):
    support.must([npuc, "compile", model, "--target", TARGET, "-o", d / "plan", "--quiet", *options])
    return support.must([npuc, "inspect", d / "plan", "--what", "kernels"]).count("past L2 if")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root")
    npuc = ap.parse_args().npuc
    with tempfile.TemporaryDirectory() as tmp:
        d = pathlib.Path(tmp)
        cases = {  # rows, inputs: hints
            "two inputs of 128 MiB": (8192, ["a", "b"], 2),
            "inputs that fit": (4096, ["a", "b"], 0),
            "a result that does not fit": (16384, ["a", "b"], 0),
            "one input of 128 MiB, read by two operands": (8192, ["a"], 0),
        }
        for name, (rows, ins, want) in cases.items():
            save(d / "m.onnx", rows, ins)
            got = hints(npuc, d, d / "m.onnx")
            assert got == want, f"{name}: {got} operands pass by L2 instead of {want}"
        save(d / "m.onnx", 8192, ["a", "b"])
        free = estimate(npuc, d / "m.onnx")
        cached, past = (estimate(npuc, d / "m.onnx", "--force", f"l2={way}") for way in ("cached", "bypass"))
        assert free == past < cached, f"{free} us free, {past} us past L2, {cached} us cached"
        save(d / "m.onnx", "n", ["a", "b"])
        late = estimate(npuc, d / "m.onnx", "-D", "n=8192")
        assert late == free, f"{late} us with a size given late, {free} us with the size in the model"


main()
