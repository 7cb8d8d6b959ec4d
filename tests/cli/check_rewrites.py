#!/usr/bin/env python3
"""npuc check --apply-rewrites: each rewrite is written, valid, named as before and computes the same; what does not is refused with
nothing written; hostile output names; the JSON form."""
import argparse
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

TARGETS = "ascend-910b1,ascend-310p3"
RNG = np.random.default_rng(7)


def save(path, nodes, inputs, outputs, weights=(), domains=(("", 19),)):
    info = lambda row: helper.make_tensor_value_info(*row)
    graph = helper.make_graph(nodes, "g", [info(i) for i in inputs], [info(o) for o in outputs],
                              [numpy_helper.from_array(w, name) for name, w in weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in domains], ir_version=10), path)
    return path


def check(npuc, model, out, *options):
    return support.call([npuc, "check", model, "--apply-rewrites", out, *map(str, options)], 60)


def interface(model):
    dims = lambda v: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
    rows = lambda values: [(v.name, v.type.tensor_type.elem_type, dims(v)) for v in values]
    return rows(model.graph.input), [(v.name, v.type.tensor_type.elem_type) for v in model.graph.output]


def rewritten(npuc, d, model, inputs, *options, rtol=1e-5, allowed=None):
    """Writes it, or says that there is nothing to do because all of it runs on the NPU; the JSON either way."""
    out = d / "out.onnx"
    out.unlink(missing_ok=True)
    before = json.loads(support.call([npuc, "check", model, "--json", *map(str, options)], 60).stdout)
    done = check(npuc, model, out, "--json", *options)
    r = json.loads(done.stdout)["rewrites"]
    if sum(t["host"] + t["unsupported"] for t in before["targets"]) == 0 and not r["fixed"]:
        assert done.returncode == 1 and "everything runs" in r["refused"] and not out.exists(), done
        return r
    assert done.returncode == 0 and r["written"] == str(out) and r["refused"] is None, done
    assert allowed in (None, r["tolerance"])
    assert r["sets"] == 3 and r["max_rel"] <= r["tolerance"]
    onnx.checker.check_model(str(out), full_check=True)
    a, b = onnx.load(model), onnx.load(out)
    if not r["fixed"]:
        assert interface(a) == interface(b), (interface(a), interface(b))
    for x, y in zip(ReferenceEvaluator(a).run(None, inputs), ReferenceEvaluator(b).run(None, inputs)):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(y, x, rtol=rtol, atol=rtol * np.abs(x).max())
    assert sorted(p.name for p in d.iterdir()) == sorted({model.name, "out.onnx"}), "more files than the model"
    return r


def test_float64(npuc, d):
    model = save(d / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["a"], name="mm"), helper.make_node("Add", ["a", "b"], ["c"], name="add"),
                                helper.make_node("Sigmoid", ["c"], ["y"], name="end")],
                 [("x", T.DOUBLE, ["n", 8])], [("y", T.DOUBLE, ["n", 4])], [("w", RNG.random((8, 4))), ("b", RNG.random(4))])
    r = rewritten(npuc, d, model, {"x": RNG.random((3, 8))}, "--target", TARGETS)
    (row,) = r["applied"]
    assert row["rewrite"] == "float32" and sorted(row["nodes"]) == ["add", "end", "mm"], row
    assert r["tolerance"] == 1e-5 and 0 < r["max_rel"] < 1e-5
    assert [t["npu"] for t in r["after"]][0] == 3, "three nodes compute on the NPU"
    types = {n.op_type for n in onnx.load(d / "out.onnx").graph.node}
    assert types == {"Cast", "MatMul", "Add", "Sigmoid"}, types


def test_refused(npuc, d):
    """Differences of large numbers need their 64 bits."""
    model = save(d / "m.onnx", [helper.make_node("Add", ["x", "b"], ["a"], name="up"), helper.make_node("Sub", ["a", "b"], ["y"], name="down")],
                 [("x", T.DOUBLE, ["n", 8])], [("y", T.DOUBLE, ["n", 8])], [("b", np.array([1e8]))])
    done = check(npuc, model, d / "out.onnx")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
    assert "not written: output 'y' differs by up to" in done.stderr and "allowed 1e-05" in done.stderr, done.stderr
    assert "up, down" in done.stdout and [p.name for p in d.iterdir()] == ["m.onnx"]


def resize(d, kind, dims, scales=None, sizes=None, **attrs):
    operands = ["x", "", "s"] if scales else ["x", "", "", "s"]
    s = np.float32(scales) if scales else np.int64(sizes)
    return save(d / "m.onnx", [helper.make_node("Resize", operands, ["y"], name="rs", **attrs)], [("x", kind, dims)],
                [("y", kind, [None] * 4)], [("s", s)])


def test_resize(npuc, d):
    x = RNG.random((2, 3, 10, 15), dtype=np.float32)
    ways = [dict(scales=[1, 1, 2, 2.4], mode="cubic"), dict(sizes=[7, 9], axes=[2, 3], mode="linear", antialias=1),
            dict(sizes=[2, 3, 20, 30], mode="linear", coordinate_transformation_mode="align_corners"),
            dict(sizes=[2, 3, 7, 40], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")]
    for way in ways:
        rewritten(npuc, d, resize(d, T.FLOAT, [2, 3, 10, 15], **way), {"x": x}, "--target", TARGETS, rtol=1e-4)
    rewritten(npuc, d, resize(d, T.FLOAT, ["n", 3, "h", "w"], scales=[1, 1, 2, 3], mode="nearest"), {"x": x}, rtol=0, allowed=0)


def test_gemm(npuc, d):
    model = save(d / "m.onnx", [helper.make_node("Gemm", ["x", "w", "c"], ["y"], name="g", alpha=0.5, beta=2.0)], [("x", T.FLOAT, [3, 8])],
                 [("y", T.FLOAT, [3, 4])], [("w", RNG.random((8, 4), dtype=np.float32)), ("c", RNG.random((3, 4), dtype=np.float32))])
    rewritten(npuc, d, model, {"x": RNG.random((3, 8), dtype=np.float32)})


def test_fixed_sizes(npuc, d):
    model = save(d / "m.onnx", [helper.make_node("Relu", ["x"], ["y"], name="r")], [("x", T.FLOAT, ["batch", "seq"])], [("y", T.FLOAT, ["batch", "seq"])])
    r = rewritten(npuc, d, model, {"x": RNG.random((4, 5), dtype=np.float32)}, "-D", "batch=4")
    assert r["fixed"] == "batch=4" and r["tolerance"] == 0 and r["applied"] == []
    assert interface(onnx.load(d / "out.onnx"))[0] == [("x", T.FLOAT, [4, "seq"])]


def test_nothing_to_do(npuc, d):
    for nodes, text in [([helper.make_node("Relu", ["x"], ["y"])], "everything runs on the NPU"),
                        ([helper.make_node("NonZero", ["x"], ["y"])], "no rewrite fits")]:
        kind = T.INT64 if nodes[0].op_type == "NonZero" else T.FLOAT
        model = save(d / "m.onnx", nodes, [("x", T.FLOAT, [4, 4])], [("y", kind, None)])
        done = check(npuc, model, d / "out.onnx")
        assert done.returncode == 1 and text in done.stderr and text in done.stdout, done
        assert not (d / "out.onnx").exists()


def test_errors(npuc, d):
    """What cannot be imported or verified: its own exit code, nothing written."""
    model = save(d / "m.onnx", [helper.make_node("Frobnicate", ["x"], ["y"])], [("x", T.FLOAT, [4])], [("y", T.FLOAT, [4])])
    done = check(npuc, model, d / "out.onnx")
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1, done
    model = save(d / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", T.DOUBLE, [4, 8])], [("y", T.DOUBLE, [4, 2])], [("w", RNG.random((8, 2)))])
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="w.bin", size_threshold=0)
    (d / "w.bin").unlink()
    done = check(npuc, model, d / "out.onnx")
    assert done.returncode not in (0, 1) and "w.bin" in done.stderr, done
    save(model, [helper.make_node("Erf", ["x"], ["y"])], [("x", T.DOUBLE, [4])], [("y", T.DOUBLE, [4])])
    done = check(npuc, model, d / "out.onnx", "-D", "nothing=3")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done
    assert check(npuc, d / "absent.onnx", d / "out.onnx").returncode == 6
    assert [p.name for p in d.iterdir()] == ["m.onnx"]


def test_endless(npuc, d):
    """A loop that random inputs never end."""
    body = helper.make_graph([helper.make_node("Erf", ["a"], ["b"], name="erf"), helper.make_node("Identity", ["go"], ["on"])], "body",
                             [helper.make_tensor_value_info(*v) for v in (("i", T.INT64, []), ("go", T.BOOL, []), ("a", T.DOUBLE, [1]))],
                             [helper.make_tensor_value_info(*v) for v in (("on", T.BOOL, []), ("b", T.DOUBLE, [1]))])
    model = save(d / "m.onnx", [helper.make_node("Loop", ["", "", "x"], ["y"], body=body)], [("x", T.DOUBLE, [1])], [("y", T.DOUBLE, [1])])
    done = check(npuc, model, d / "out.onnx")
    assert done.returncode == 1 and "has not ended" in done.stderr and not (d / "out.onnx").exists(), done


def test_text(npuc, d):
    """No inputs can be made up."""
    model = save(d / "m.onnx", [helper.make_node("StringConcat", ["s", "s"], ["z"]), helper.make_node("Erf", ["x"], ["y"])],
                 [("s", T.STRING, [2]), ("x", T.DOUBLE, [2])], [("z", T.STRING, [2]), ("y", T.DOUBLE, [2])], domains=[("", 20)])
    done = check(npuc, model, d / "out.onnx")
    assert done.returncode == 1 and "no input can be made up for 's'" in done.stderr and not (d / "out.onnx").exists(), done


def test_hostile_names(npuc, d):
    def model():
        return save(d / "m.onnx", [helper.make_node("Erf", ["x"], ["y"])], [("x", T.DOUBLE, [4])], [("y", T.DOUBLE, [4])])
    before = model().read_bytes()
    (d / "folder").mkdir()
    (d / "link.onnx").symlink_to("m.onnx")
    os.mkfifo(d / "pipe")
    there = sorted(p.name for p in d.iterdir())
    for out, code in [("m.onnx", 2), ("./folder/../m.onnx", 2), ("link.onnx", 2), ("folder", 6), ("none/out.onnx", 6), ("", 6), ("m.onnx/out.onnx", 6)]:
        done = support.call([npuc, "check", "m.onnx", "--apply-rewrites", out], 60, cwd=d)
        assert done.returncode == code and done.stderr.strip(), (out, done)
        assert (d / "m.onnx").read_bytes() == before and sorted(p.name for p in d.iterdir()) == there, out
    name = "a b\n$(x)'.onnx"
    assert support.call([npuc, "check", "m.onnx", "--apply-rewrites", name], 60, cwd=d).returncode == 0
    onnx.checker.check_model(onnx.load(d / name))
    (d / name).write_text("older", encoding="utf-8")
    assert support.call([npuc, "check", "m.onnx", "--apply-rewrites", name], 60, cwd=d).returncode == 0, "an older file is replaced"
    onnx.checker.check_model(onnx.load(d / name))


def test_report(npuc, d):
    model = save(d / "m.onnx", [helper.make_node("Erf", ["x"], ["y"], name="erf")], [("x", T.DOUBLE, ["n", 4])], [("y", T.DOUBLE, ["n", 4])])
    text = check(npuc, model, d / "out.onnx").stdout
    for part in ["--apply-rewrites OUT.onnx does it", "64-bit floats are computed in 32 bits, 1 node: erf", "same results on 3 sets of random inputs, n = 1",
                 "0 of 1 nodes on the NPU -> ", "written: "]:
        assert part in text, (part, text)
    assert "### Rewrites" in check(npuc, model, d / "out.onnx", "--md").stdout


TESTS = [test_float64, test_refused, test_resize, test_gemm, test_fixed_sizes, test_nothing_to_do, test_errors, test_endless, test_text, test_hostile_names, test_report]


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--root", type=pathlib.Path, help="not used")
    npuc = ap.parse_args().npuc.resolve()

    def work(test):
        with tempfile.TemporaryDirectory() as scratch:
            test(npuc, pathlib.Path(scratch))
    return support.run_cases([(t.__name__, t) for t in TESTS], work)


if __name__ == "__main__":
    sys.exit(main())
