#!/usr/bin/env python3
"""npuc check: every problem at once, shares of time, the JSON form that docs/check.md describes, exit codes."""
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

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
TARGETS = "ascend-910b1,ascend-310p3"


def save(path, nodes, inputs, outputs, weights=(), domains=(("", 18),), notes=()):
    info = lambda row: helper.make_tensor_value_info(*row)
    graph = helper.make_graph(nodes, "g", [info(i) for i in inputs], [info(o) for o in outputs],
                              [numpy_helper.from_array(w, name) for name, w in weights], value_info=[info(n) for n in notes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in domains], ir_version=10)
    onnx.save(model, path)
    return path


def run(npuc, *args):
    return support.call([npuc, "check", *map(str, args)], 60)


def report(npuc, *args):
    done = run(npuc, *args, "--json")
    return json.loads(done.stdout), done.returncode


def test_supported(npuc, d):
    model = save(d / "ok.onnx", [helper.make_node("MatMul", ["x", "w"], ["a"], name="mm"), helper.make_node("Relu", ["a"], ["y"])],
                 [("x", F32, ["batch", 64])], [("y", F32, ["batch", 32])], [("w", np.ones((64, 32), np.float32))])
    done = run(npuc, model)
    assert done.returncode == 0, done
    assert "runs: 2 of 2 nodes on the NPU = " in done.stdout and "0 on the host" in done.stdout, done.stdout
    assert "batch = 1" in done.stdout, "the assumed sizes are not stated"
    assert done.stderr == ""
    r, code = report(npuc, model, "-D", "batch=4096")
    (t,) = r["targets"]
    assert code == 0 and t["compiles"] and t["time_share"] > 0.9 and t["us"] > 0 and t["bytes"] > 4096 * 64 * 4
    rows = {row["op"]: row["targets"][t["target"]] for row in r["operators"]}
    assert rows["MatMul"]["time_share"] > rows["Relu"]["time_share"] > 0, rows
    assert abs(sum(row["time_share"] for row in rows.values()) - t["time_share"]) < 0.05


def test_host(npuc, d):
    model = save(d / "host.onnx", [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("NonZero", ["a"], ["y"], name="nz")],
                 [("x", F32, [8, 8])], [("y", I64, [2, None])])
    r, code = report(npuc, model, "--target", TARGETS)
    assert code == 1 and [t["host"] for t in r["targets"]] == [1, 1], r["targets"]
    nz = next(row for row in r["operators"] if row["op"] == "NonZero")
    use = nz["targets"]["ascend-910b1"]
    assert use["reason"] and use["hint"] and use["us"] > 0, "a host operator is never free"
    assert {n["node"] for n in r["not_on_npu"]} == {"nz"}
    text = run(npuc, model, "--target", TARGETS, "--nodes").stdout
    assert re.search(r"^nz +NonZero +ascend-310p3 +host: ", text, re.M), text


def test_all_problems(npuc, d):
    nodes = [helper.make_node("Nope", ["x"], ["a"], name="first"), helper.make_node("Other", ["a"], ["b"], domain="my.ops"),
             helper.make_node("Relu", ["b"], ["c"]), helper.make_node("LeakyRelu", ["x"], ["e"], alpha=1, name="attr"),
             helper.make_node("MatMul", ["x", "w"], ["f"], name="shape"), helper.make_node("Swish", ["x"], ["g"]),
             helper.make_node("Sum", ["c", "e", "x"], ["y"])]
    nodes[3].attribute[0].CopyFrom(helper.make_attribute("alpha", "text"))
    model = save(d / "bad.onnx", nodes, [("x", F32, [4, 4])], [("y", F32, [4, 4]), ("f", F32, None), ("g", F32, None)],
                 [("w", np.ones((5, 4), np.float32))], [("", 18), ("my.ops", 1)], [("b", F32, [4, 4])])
    r, code = report(npuc, model)
    assert code == 4, code
    for word in ("Nope", "Other of domain my.ops", "'attr'", "'shape'", "Swish was introduced in opset 24"):
        assert any(word in p for p in r["problems"]), (word, r["problems"])
    (t,) = r["targets"]
    assert t["unsupported"] >= 4 and t["npu"] >= 1 and not t["compiles"], t
    assert {n["where"] for n in r["not_on_npu"]} == {"unsupported"}
    done = run(npuc, model)
    assert done.returncode == 4 and "cannot be compiled" in done.stdout, done.stdout
    assert len(done.stderr.splitlines()) == len(r["problems"])


def test_frozen(npuc, d):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="head/Reshape_3")]
    model = save(d / "frozen.onnx", nodes, [("x", F32, ["batch", 8, 8])], [("y", F32, None)],
                 [("shape", np.array([1, 64], np.int64))])
    r, _ = report(npuc, model)
    (line,) = r["surprises"]
    assert "'x'" in line and "batch" in line and "head/Reshape_3" in line and "-D" in line, line
    assert report(npuc, model, "-D", "batch=1")[0]["surprises"] == []


def test_missing_data(npuc, d):
    w = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    model = save(d / "far.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", F32, [1, 64])], [("y", F32, [1, 64])],
                 [("w", np.ones((64, 64), np.float32))])
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="far.data", size_threshold=0)
    (d / "far.data").unlink()
    r, code = report(npuc, model)
    assert code == 1 and r["missing_tensors"] == 1 and r["targets"][0]["us"] > 0, r
    assert w.name == "w" and any("far.data" in line for line in r["surprises"])


def test_forms(npuc, d):
    model = save(d / "odd.onnx", [helper.make_node("Relu", ["x"], ["y"], name="a|b\x1b[31m")], [("x", F32, [4])], [("y", F32, [4])])
    md = run(npuc, model, "--md")
    assert "| operator | count |" in md.stdout and "\x1b" not in md.stdout, md.stdout
    assert "\x1b" not in run(npuc, model, "--nodes").stdout
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "check.md").read_text()
    r, _ = report(npuc, model)
    fields = set(r) | set(r["targets"][0]) | set(r["operators"][0]) | set(r["operators"][0]["targets"]["ascend-910b1"])
    missing = [f for f in fields if f"`{f}`" not in page and not f.startswith("ascend-")]
    assert r["schema"] == 1 and not missing, f"docs/check.md does not describe {missing}"


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--root", type=pathlib.Path)
    args = ap.parse_args()
    failed = 0
    tests = {name: f for name, f in globals().items() if name.startswith("test_")}
    for name, test in tests.items():
        with tempfile.TemporaryDirectory(prefix="npuc-check-") as d:
            try:
                test(args.npuc.resolve(), pathlib.Path(d))
            except AssertionError as e:
                failed += 1
                print(f"FAILED {name}: {e}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
