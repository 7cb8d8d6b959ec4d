#!/usr/bin/env python3
"""npuc-opt --emit-onnx: what it writes is valid for onnx.checker, has the names of the model it was made from, and computes the
same: every model fixture against its recorded outputs, and small models of what fixtures lack against the model before.

    check_write.py --opt NPUC_OPT MODELS
"""
import argparse
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "ir/eval"))
import check_models
from support import call, fixtures, must, run_cases

PASSES = "fold_constants,dce"


def interface(model):
    def dims(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    g = model.graph
    given = {t.name for t in g.initializer}
    named = [(v.name, dims(v)) for v in g.input if v.name not in given]
    return named, [v.name for v in g.output]


def check_same(before, after):
    """Names, and the dims that are names themselves; what was an expression keeps its value, not its spelling."""
    (ins, outs), (new_ins, new_outs) = interface(before), interface(after)
    assert [n for n, _ in ins] == [n for n, _ in new_ins] and outs == new_outs, (ins, new_ins, outs, new_outs)
    for (name, old), (_, new) in zip(ins, new_ins):
        for a, b in zip(old, new):
            assert a == b or not a or not str(a).replace("_", "").isalnum(), f"{name}: dimension {a} became {b}"


def emit(opt, model, out, *options):
    must([opt, model, "--emit-onnx", out, *options])
    onnx.checker.check_model(str(out), full_check=True)
    check_same(onnx.load(str(model), load_external_data=False), onnx.load(str(out), load_external_data=False))


def check_fixture(opt, f):
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        emit(opt, f.model, folder / "model.onnx", "-p", PASSES)
        faults = []
        for case in f.cases()[:2]:
            out = folder / case.name
            out.mkdir()
            faults += check_models.run_case(opt, folder, case, f.meta, "NONE", str(out))
        assert not faults, faults[0]


# ---- small models: (nodes, inputs, outputs, weights); inputs by name and value


def info(name, kind, dims):
    return helper.make_tensor_value_info(name, kind, dims)


def save(path, nodes, inputs, outputs, weights=(), opset=23, domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights])
    ids = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=ids, ir_version=10), path)
    return path


def evaluate(opt, model, inputs, d):
    args = []
    for name, value in inputs.items():
        np.save(d / f"{name}.npy", value)
        args += ["--input", f"{name}={d / name}.npy"]
    return must([opt, "--eval", model, *args])


def check_eval(opt, build, passes):
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        inputs = build(d / "a.onnx")
        emit(opt, d / "a.onnx", d / "b.onnx", *passes)
        assert evaluate(opt, d / "a.onnx", inputs, d) == evaluate(opt, d / "b.onnx", inputs, d)


X = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)
ROWS = [info("x", T.FLOAT, ["rows", 4])]


def branches(path):
    """Results that are captured, listed twice, or constants of the branch."""
    w = numpy_helper.from_array(np.full((1, 4), 2, np.float32), "w")
    one = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["p"])], "then", [], [info("p", T.FLOAT, None), info("x", T.FLOAT, None)], [w])
    two = helper.make_graph([helper.make_node("Neg", ["x"], ["p"])], "else", [], [info("p", T.FLOAT, None), info("w", T.FLOAT, None)], [w])
    save(path, [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Greater", ["s", "zero"], ["c"]),
                helper.make_node("If", ["c"], ["y", "z"], then_branch=one, else_branch=two)],
         ROWS, [info("y", T.FLOAT, None), info("z", T.FLOAT, None)], [("zero", np.float32(0))])
    return {"x": X}


def loops(path):
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "x"], ["b"]), helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Shape", ["b"], ["n"])],
        "body", [info("i", T.INT64, []), info("go", T.BOOL, []), info("a", T.FLOAT, None)],
        [info("on", T.BOOL, None), info("b", T.FLOAT, None), info("n", T.INT64, None)])
    step = helper.make_graph([helper.make_node("Add", ["h", "r"], ["k"]), helper.make_node("Mul", ["k", "r"], ["o"])], "step",
                             [info("h", T.FLOAT, [4]), info("r", T.FLOAT, [4])], [info("k", T.FLOAT, [4]), info("o", T.FLOAT, [4])])
    save(path, [helper.make_node("Loop", ["count", "", "x"], ["y", "ns"], body=body),
                helper.make_node("Scan", ["h0", "y"], ["h", "os"], body=step, num_scan_inputs=1)],
         [*ROWS, info("count", T.INT64, [])], [info("h", T.FLOAT, None), info("os", T.FLOAT, None), info("ns", T.INT64, None)],
         [("h0", np.zeros(4, np.float32))])
    return {"x": X, "count": np.int64(3)}


def sequences(path):
    save(path, [helper.make_node("SplitToSequence", ["x"], ["s"], axis=0), helper.make_node("SequenceAt", ["s", "at"], ["y"])],
         [*ROWS, info("at", T.INT64, [])], [info("y", T.FLOAT, None)])
    return {"x": X, "at": np.int64(1)}


def sizes(path):
    """Shape arithmetic that folding turns into size expressions: products, quotients of sums, remainders."""
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "first"], ["r"]),
             helper.make_node("Add", ["r", "seven"], ["t"]), helper.make_node("Div", ["t", "three"], ["q"]),
             helper.make_node("Mod", ["t", "three"], ["m"]), helper.make_node("Mul", ["q", "r"], ["p"]),
             helper.make_node("Max", ["p", "seven"], ["h"]), helper.make_node("Concat", ["p", "q", "m", "h"], ["y"], axis=0),
             helper.make_node("Concat", ["q", "r"], ["shape"], axis=0),
             helper.make_node("ConstantOfShape", ["shape"], ["z"], value=numpy_helper.from_array(np.ones(1, np.float32)))]
    save(path, nodes, ROWS, [info("y", T.INT64, [4]), info("z", T.FLOAT, None)],
         [(n, np.array([v])) for n, v in (("first", 0), ("three", 3), ("seven", 7))])
    return {"x": X}


def own_operators(path):
    """What has another name or is several operators here: powers, shifts, one-sided clips, tanh-Gelu."""
    nodes = [helper.make_node("Gelu", ["x"], ["g"], approximate="tanh"), helper.make_node("Mod", ["g", "three"], ["f"], fmod=1),
             helper.make_node("Clip", ["f", "low"], ["c"]), helper.make_node("Clip", ["c", "low", "high"], ["y"]),
             helper.make_node("BitShift", ["u", "u"], ["z"], direction="LEFT"), helper.make_node("BitShift", ["z", "u"], ["v"], direction="RIGHT")]
    save(path, nodes, [*ROWS, info("u", T.UINT8, [2])], [info("y", T.FLOAT, None), info("v", T.UINT8, None)],
         [("three", np.float32(3)), ("low", np.float32(-1)), ("high", np.float32(1))])
    return {"x": X, "u": np.array([1, 3], np.uint8)}


def dialect(path):
    nodes = [helper.make_node("FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft", transB=1, alpha=0.5),
             helper.make_node("BiasGelu", ["a", "b"], ["y"], domain="com.microsoft")]
    save(path, nodes, ROWS, [info("y", T.FLOAT, ["rows", 3])],
         [("w", np.arange(12, dtype=np.float32).reshape(3, 4)), ("b", np.ones(3, np.float32))], domains=["com.microsoft"])
    return {"x": X}


SMALL = [branches, loops, sequences, sizes, own_operators, dialect]

def check_fused(opt, _):
    """Regions of a pass stand where the node stood."""
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        save(d / "a.onnx", [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("Mul", ["e", "x"], ["m"]), helper.make_node("Sqrt", ["m"], ["q"]),
                            helper.make_node("Reciprocal", ["q"], ["y"])], ROWS, [info("y", T.FLOAT, ["rows", 4])])
        emit(opt, d / "a.onnx", d / "b.onnx", "-p", "place,fuse_vector", "--target", "ascend-910b1")
        assert evaluate(opt, d / "a.onnx", {"x": np.abs(X) + 1}, d) == evaluate(opt, d / "b.onnx", {"x": np.abs(X) + 1}, d)


def check_external(opt, _):
    """Beyond the limit large constants go to a file beside the model, small ones stay; the files replace older ones."""
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        w = np.arange(4 * 1024, dtype=np.float32).reshape(4, 1024)
        save(d / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])], ROWS,
             [info("y", T.FLOAT, ["rows", 1024])], [("w", w), ("b", np.float32([3]))])
        for _ in range(2):
            emit(opt, d / "a.onnx", d / "b.onnx", "--external-limit", "1000")
        assert sorted(p.name for p in d.iterdir() if p.suffix != ".npy") == ["a.onnx", "b.onnx", "b.onnx.data"]
        assert (d / "b.onnx").stat().st_size < 4096 <= w.nbytes <= (d / "b.onnx.data").stat().st_size
        assert evaluate(opt, d / "a.onnx", {"x": X}, d) == evaluate(opt, d / "b.onnx", {"x": X}, d)
        (d / "c.onnx.data").write_text("of another model", encoding="utf-8")
        done = call([opt, d / "a.onnx", "--emit-onnx", d / "c.onnx", "--external-limit", "1000"])
        assert done.returncode == 6 and "exists without the model" in done.stderr and not (d / "c.onnx").exists(), done
        assert (d / "c.onnx.data").read_text(encoding="utf-8") == "of another model"


def check_refusals(opt, bard):
    """One line, an exit code, no file."""
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        model = save(d / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], ROWS, [info("y", T.FLOAT, ["rows", 2])],
                     [("w", np.ones((4, 2), np.float32))])
        tensor = onnx.load(model)
        onnx.save(tensor, d / "c.onnx", save_as_external_data=True, location="c.bin", size_threshold=0)
        (d / "c.bin").unlink()
        (d / "folder.onnx").mkdir()
        cases = [([bard, "-p", "default", "--target", "ascend-910b1", "--cache-capacity", "64"], d / "b.onnx", 4, "no form in ONNX"),
                 ([d / "c.onnx"], d / "b.onnx", 4, "data file is absent"),
                 ([model], d / "none" / "b.onnx", 6, "b.onnx"),
                 ([model], d / "folder.onnx", 6, "folder.onnx")]
        for command, out, code, text in cases:
            done = call([opt, *command, "--emit-onnx", out])
            assert done.returncode == code and text in done.stderr and len(done.stderr.splitlines()) == 1, done
            assert not out.is_file()
        assert sorted(p.name for p in d.iterdir()) == ["a.onnx", "c.onnx", "folder.onnx"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True, type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    o = parser.parse_args()
    work = [(f.name, lambda f=f: check_fixture(o.opt, f)) for f in fixtures(o.models)]
    work += [(f"{b.__name__} {' '.join(p)}", lambda b=b, p=p: check_eval(o.opt, b, p)) for b in SMALL for p in ((), ("-p", PASSES))]
    bard = o.models.resolve().parents[1] / "examples/bard/model.onnx"
    work += [(c.__name__, lambda c=c: c(o.opt, bard)) for c in (check_fused, check_external, check_refusals)]
    return run_cases(work, lambda w: w())


if __name__ == "__main__":
    sys.exit(main())
