#!/usr/bin/env python3
"""Models that hold codes, in and out: what `npuc quantize --export-qdq` writes runs in onnxruntime to the same codes (bits)
and the same values; what `npuc quantize --from` reads of a quantised model (QDQ, QLinear*, MatMulNBits, integer products)
compiles to the kernels that the model itself compiles to.

    check_qdq.py --npuc NPUC MODELS
"""
import argparse
import collections
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import must, run_cases

TARGETS = ("ascend-910b1", "mlu370-x4")
WAYS = [("--threads", "2"), ("--mode", "both")]


def info(name, kind, dims):
    return helper.make_tensor_value_info(name, kind, dims)


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def save(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


# ---- small models: each writes its file and returns its inputs; products are called "p" and "r"


def rows(path):
    save(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="p")], [info("x", T.FLOAT, ["b", "s", 37])],
         [info("y", T.FLOAT, None)], {"w": random(1, 37, 24)})
    return {"x": random(2, 2, 5, 37) * np.linspace(0, 9, 5, dtype=np.float32)[:, None]}


def gemm(path):
    save(path, [helper.make_node("Gemm", ["x", "w", "c"], ["y"], name="p", transB=1)], [info("x", T.FLOAT, ["b", 40])],
         [info("y", T.FLOAT, None)], {"w": random(3, 18, 40), "c": random(4, 18)})
    return {"x": random(5, 7, 40)}


def two(path):
    """Two products of one value share its codes."""
    save(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="p"), helper.make_node("MatMul", ["x", "v"], ["z"], name="r")],
         [info("x", T.FLOAT, ["b", 32])], [info("y", T.FLOAT, None), info("z", T.FLOAT, None)],
         {"w": random(6, 32, 16), "v": random(7, 32, 48)})
    return {"x": random(8, 9, 32)}


def conv(path):
    save(path, [helper.make_node("Conv", ["x", "w", "c"], ["h"], name="p", pads=[1, 0, 1, 2], strides=[2, 1], group=2),
                helper.make_node("Relu", ["h"], ["i"]), helper.make_node("Conv", ["i", "v"], ["y"], name="r")],
         [info("x", T.FLOAT, ["b", 6, 11, 9])], [info("y", T.FLOAT, None)],
         {"w": random(9, 8, 3, 3, 3), "c": random(10, 8), "v": random(11, 5, 8, 1, 1)})
    return {"x": random(12, 2, 6, 11, 9)}


STATIC = "weight = int8 channel\ninput = int8 scale=0.02"
FORMS = {
    "w8a8": STATIC,
    "asymmetric": "weight = uint8 channel zero\ninput = uint8 scale=0.0173 zero=101",
    "tensor": "weight = int8\ninput = int8 scale=0.031 zero=-7",
    "token": "weight = int8 channel\ninput = int8 token",
    "dynamic": "weight = int8\ninput = uint8 dynamic zero",
    "amct": "weight = int8 channel divisor=side round=away\ninput = int8 scale=0.02 round=away",
    "narrow": "weight = int8 channel narrow\ninput = int8 token divisor=full narrow",
    "w8a16": "weight = int8 channel",
    "w4": "weight = int4 group=16 zero",
    "e4m3": "weight = float8e4m3fn channel",
}
ROWS = set(FORMS)
SMALL = [(rows, ROWS), (gemm, ROWS), (two, ROWS), (conv, {"w8a8", "asymmetric", "tensor", "w8a16", "dynamic", "e4m3", "amct", "token"})]


def recipe(path, model, form):
    names = [n.name for n in onnx.load(model).graph.node if n.name in ("p", "r")]
    path.write_text("version = 1\n" + "".join(f"[{n}]\n{form}\n" for n in names), encoding="utf-8")


# ---- running


def export(o, model, r, out):
    must([o.npuc, "quantize", model, "--recipe", r, "--export-qdq", out, "--quiet"])
    onnx.checker.check_model(str(out), full_check=True)


def with_codes(path):
    """The codes of inputs as results of the model; their names."""
    m = onnx.load(path)
    known = {t.name for t in m.graph.initializer}
    codes = list(dict.fromkeys(n.input[0] for n in m.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in known))
    m.graph.output.extend(helper.make_empty_tensor_value_info(c) for c in codes)
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(m).graph.value_info}
    for v in m.graph.output:
        if v.name in inferred:
            v.CopyFrom(inferred[v.name])
    onnx.save(m, path)
    return codes


def run_ort(path, inputs, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    s = ort.InferenceSession(str(path), options)
    return dict(zip([v.name for v in s.get_outputs()], s.run(None, inputs)))


def run_npuc(o, d, model, inputs, *options):
    must([o.npuc, "compile", model, "-o", d / "p.plan", "--quiet", *options])
    return run_plan(o, d, d / "p.plan", inputs)


def run_plan(o, d, plan, inputs, *options):
    args = list(options)
    for i, (name, value) in enumerate(inputs.items()):
        np.save(d / f"in{i}.npy", value)
        args += ["--input", f"{name}={d}/in{i}.npy"]
    must([o.npuc, "run", plan, *args, "--output-dir", d / "out"])
    index = json.loads((d / "out/outputs.json").read_text(encoding="utf-8"))
    return {name: np.load(d / "out" / at) for name, at in index.items()}


def close(got, want, what):
    want = np.asarray(want, np.float64)
    most = np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()
    assert most < 2e-6, f"{what}: differs by {most:.2g} of the largest value"


# ---- the round trip


def check_export(o, build, name):
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        inputs = build(d / "m.onnx")
        recipe(d / "r", d / "m.onnx", FORMS[name])
        export(o, d / "m.onnx", d / "r", d / "q.onnx")
        plain = run_npuc(o, d, d / "m.onnx", inputs, "--recipe", d / "r", "-D", "b=1..64")
        again = run_npuc(o, d, d / "q.onnx", inputs, "-D", "b=1..64")
        assert all(np.array_equal(plain[k], again[k]) for k in plain), "the file and the recipe give other bits"
        check_ways(o, d, inputs, plain)
        codes = with_codes(d / "q.onnx")
        ours = run_npuc(o, d, d / "q.onnx", inputs, "-D", "b=1..64")
        theirs = run_ort(d / "q.onnx", inputs, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        first = codes[:1] if build is conv else codes # codes behind a convolution: of sums in another order
        assert all(np.array_equal(ours[c], theirs[c]) for c in first), "other codes in onnxruntime"
        far = [int(np.abs(ours[c].astype(int) - theirs[c]).max()) for c in codes]
        assert all(v <= 1 for v in far), f"codes are {far} apart"
        for k in plain:
            if not codes[1:] or build is two or np.array_equal(ours[codes[-1]], theirs[codes[-1]]):
                close(plain[k], theirs[k], k)
        assert_same_recipe(o, d)


def check_ways(o, d, inputs, want):
    """Families of targets, threads and modes give the same bits."""
    for target in TARGETS:
        got = run_npuc(o, d, d / "m.onnx", inputs, "--recipe", d / "r", "-D", "b=1..64", "--target", target)
        for way in [(), *WAYS]:
            got = run_plan(o, d, d / "p.plan", inputs, *way) if way else got
            assert all(np.array_equal(want[k], got[k]) for k in want), f"{target} {' '.join(way)}: other bits"


def assert_same_recipe(o, d):
    """Read back: the recipe says the same, with codes in its data file, and gives the same bits."""
    must([o.npuc, "quantize", "--from", d / "q.onnx", "-o", d / "back", "--float", d / "f.onnx", "--quiet"])
    again = (d / "back").read_text(encoding="utf-8")
    must([o.npuc, "quantize", "--from", d / "q.onnx", "-o", d / "back", "--quiet"])
    assert (d / "back").read_text(encoding="utf-8") == again, "reading twice gives two recipes"


# ---- the same plan from every form


def kernels(o, d, model, target, *options):
    """Launches and host steps. Each kernel has a launch of its own: the order of the nodes decides what is near enough to share one."""
    must([o.npuc, "compile", model, "-o", d / "k.plan", "--quiet", "--target", target, "--force", "launches=single", *options])
    text = must([o.npuc, "inspect", d / "k.plan", "--what", "steps"])
    steps = [line.split("(")[0].split()[1:] for line in text.splitlines()]
    return collections.Counter(" ".join(s) for s in steps if s)


def feeds(folder):
    case = sorted((folder / "cases").iterdir())[0]
    return {f.stem: np.load(f) for f in sorted((case / "inputs").glob("*.npy"))}


def check_from(o, folder):
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        must([o.npuc, "quantize", "--from", folder / "model.onnx", "-o", d / "r", "--float", d / "f.onnx", "--quiet"])
        onnx.checker.check_model(str(d / "f.onnx"), full_check=True)
        assert not any("Integer" in n.op_type or n.op_type == "MatMulNBits" for n in onnx.load(d / "f.onnx").graph.node)
        for target in TARGETS:
            own = kernels(o, d, folder / "model.onnx", target)
            made = kernels(o, d, d / "f.onnx", target, "--recipe", d / "r")
            if target == TARGETS[0]:
                inputs = feeds(folder)
                want, got = run_npuc(o, d, folder / "model.onnx", inputs), run_npuc(o, d, d / "f.onnx", inputs, "--recipe", d / "r")
                assert all(np.array_equal(want[k], got[k]) for k in want), "the recipe gives other bits than the model"
            assert own == made, f"{target}: {sorted((own - made).items())} became {sorted((made - own).items())}"


def check_operators(o, folder):
    """QLinear operators and QDQ of the same network compile to the same kernels."""
    with tempfile.TemporaryDirectory() as scratch:
        for target in TARGETS:
            pairs, operators = (kernels(o, pathlib.Path(scratch), folder / name / "model.onnx", target)
                                for name in ("resnet8-qdq-u8s8-pertensor", "resnet8-qoperator"))
            assert pairs == operators, f"{target}: {sorted((pairs - operators).items())}, {sorted((operators - pairs).items())}"


CASES = ["llama-ortquant-dynamic", "llama-ortquant-nbits4-asym", "llama-ortquant-qdq", "resnet8-qdq-s8",
         "resnet8-qdq-u8s8-pertensor"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    o = parser.parse_args()
    work = [(f"{b.__name__} {f}", lambda b=b, f=f: check_export(o, b, f)) for b, forms in SMALL for f in FORMS if f in forms]
    work += [("operators", lambda: check_operators(o, o.models))]
    work += [(f"from {c}", lambda c=c: check_from(o, o.models / c)) for c in CASES]
    return run_cases(work, lambda w: w())


if __name__ == "__main__":
    sys.exit(main())
