#!/usr/bin/env python3
"""The report of layout conversions: what inspect, compile and estimate say of them agrees with the steps of the plan."""
import argparse
import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

TARGETS = {"ascend-910b1": "NC1HWC0", "mlu370-x4": "NHWC"}


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, weights):
    rng = np.random.default_rng(7)
    data = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, data)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def conv(x, w, y):
    return helper.make_node("Conv", [x, w], [y], name=y, pads=[1, 1, 1, 1])


def make_maps(path):
    """Two convolutions around a host operator: ND in, ND for the host, ND out."""
    nodes = [conv("x", "w", "a"), helper.make_node("Relu", ["a"], ["b"]), conv("b", "v", "c"),
             helper.make_node("NonZero", ["c"], ["y"]), conv("c", "v", "z")]
    save(path, nodes, [tensor("x", ["n", 16, 20, 20])], [tensor("y", [4, "k"], TensorProto.INT64), tensor("z", ["n", 32, 20, 20])],
         {"w": (32, 16, 3, 3), "v": (32, 32, 3, 3)})


def make_plain(path):
    save(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("x", [8, 32])], [tensor("y", [8, 48])], {"w": (32, 48)})


def check_rows(report, layout):
    rows = report["conversions"]
    assert rows and report["count"] == sum(r["count"] for r in rows)
    for total in ("bytes", "us", "cycles"):
        assert abs(report[total] - sum(r[total] for r in rows)) <= 1e-6 * report[total], total
    for r in rows:
        assert layout in r["from"] + r["to"] and "ND" in (r["from"], r["to"]) and r["us"] > 0 and r["cycles"] > 0 and r["why"], r
        assert r["bytes"] >= 2 * 4 * 16 * 20 * 20, r
    assert report["us"] < report["total_us"]


def check_target(npuc, d, target, layout):
    plan = d / f"{target}.plan"
    done = support.call([npuc, "compile", d / "maps.onnx", "--target", target, "-D", "n=1..4", "-o", plan])
    assert done.returncode == 0, done.stderr
    said = re.search(r"layouts +(\d+) layout conversions? left, .* % of the time", done.stderr)
    report = json.loads(support.must([npuc, "inspect", plan, "--what", "conversions", "--json", "-D", "n=3"]))
    check_rows(report, layout)
    assert said and int(said.group(1)) == report["count"], done.stderr
    why = " / ".join(r["why"] for r in report["conversions"])
    assert "input lies in ND" in why and ("NonZero" in why or "result" in why), why
    one = json.loads(support.must([npuc, "inspect", plan, "--what", "conversions", "--json", "-D", "n=1"]))
    assert 3 * one["bytes"] == report["bytes"], "bytes follow the sizes"
    text = support.must([npuc, "inspect", plan, "--what", "conversions", "-D", "n=3"])
    assert text.startswith(f"layouts     {report['count']} layout conversion") and len(text.splitlines()) == 2 + len(report["conversions"])
    model = json.loads(support.must([npuc, "estimate", d / "maps.onnx", "--target", target, "-D", "n=3", "--json"]))
    assert model[target]["run"]["layout_conversions"]["count"] == report["count"]
    profile = support.must([npuc, "estimate", d / "maps.onnx", "--target", target, "-D", "n=3", "--profile"])
    assert "layout conversion" in profile and why.split(" / ", maxsplit=1)[0] in profile
    none = support.must([npuc, "estimate", d / "plain.onnx", "--target", target])
    assert "no layout conversions" in none


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root")
    npuc = ap.parse_args().npuc
    with tempfile.TemporaryDirectory() as tmp:
        d = pathlib.Path(tmp)
        make_maps(d / "maps.onnx")
        make_plain(d / "plain.onnx")
        for target, layout in TARGETS.items():
            check_target(npuc, d, target, layout)


main()
