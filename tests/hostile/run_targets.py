#!/usr/bin/env python3
"""Wrong machines: target files with too small memories, odd alignments, missing or absurd numbers.

A model compiled for one either has the bits of the sound machine, under the hazard checker, or is refused in a line with a
documented exit code: never a wrong result, a crash, a hang or a file left behind. Operators may move to the host.

    run_targets.py --npuc NPUC
"""
import argparse
import itertools
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import call, last_line, run_cases

BASES = ("ascend-910b1", "ascend-950pr", "mlu370-x4", "template")
SECONDS = 20
REFUSALS = {2, 3, 4, 5}
SIZES = ("l1", "l0a", "l0b", "l0c", "bt", "ub")
BYTES = ("0 B", "1 B", "32 B", "96 B", "1000 B", "4 KiB", "7777 B", "1 MiB", "1e15 B")
ALIGNS = ("1 B", "3 B", "48 B", "4096 B", "1 MiB")
OTHER = {"cores.cube": ("1", "3", "1000000"), "cores.vector": ("1", "7"), "fractal.rows": ("1", "8", "17", "32"),
         "fractal.c0": ("16 B", "33 B", "64 B"), "gm.align": ("1 B", "513 B"), "gm.size": ("1 KiB",), "queue.depth": ("1",),
         "flag.events": ("1", "2"), "cores.mixed": ("0", "1"), "cores.unified": ("0", "1"), "mac.rows": ("1",),
         "vec.bytes": ("4 B", "100 B"), "l2.line": ("1 B", "1000 B"), "l2.size": ("1 B",), "clock": ("1 Hz",),
         "cores.cluster": ("3",), "flag.cross_events": ("0", "1"), "mac.f32": ("0 MAC/cycle",), "mac.f32.k0": ("3 element",),
         "hbm.bandwidth": ("1 B/s",), "cores.vector_per_cube": ("1", "3", "64")}


def models(folder):
    """(file, inputs): a product with its bias and activation, rows and movement, a convolution, attention by hand."""
    rng = np.random.default_rng(5)

    def save(name, nodes, inputs, out, weights=()):
        tensors = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights]
        graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)], tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / f"{name}.onnx")
        data = {}
        for n, s in inputs:
            data[n] = folder / f"{name}.{n}.npy"
            np.save(data[n], rng.standard_normal(s).astype(np.float32))
        return folder / f"{name}.onnx", data

    yield save("product", [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
                           helper.make_node("MatMul", ["r", "x"], ["y"])], [("x", (37, 70))], (37, 70),
               [("w", (70, 37)), ("b", (37,))])
    yield save("rows", [helper.make_node("Softmax", ["x"], ["s"], axis=-1), helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1]),
                        helper.make_node("Tanh", ["t"], ["u"]), helper.make_node("ReduceSum", ["u"], ["y"])],
               [("x", (3, 50, 33))], (1, 1, 1))
    yield save("conv", [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[2, 2])],
               [("x", (1, 5, 9, 11))], (1, 20, 8, 10), [("w", (20, 5, 3, 3)), ("b", (20,))])


def changes():
    for space, value in itertools.product(SIZES, BYTES):
        yield f"{space}.size", value
    for space, value in itertools.product(SIZES, ALIGNS):
        yield f"{space}.align", value
    for key, values in OTHER.items():
        for value in values:
            yield key, value


def run(npuc, model, inputs, target, folder):
    """(outputs or None, None) or (None, what is wrong)."""
    plan, out = folder / f"{model.stem}.plan", folder / model.stem
    p = call([npuc, "compile", model, "--target", target, "-o", plan, "--quiet"], SECONDS)
    if p.returncode:
        if p.returncode not in REFUSALS or not p.stderr.strip():
            return None, f"compile ended with {p.returncode}: {last_line(p.stderr)}"
        return None, "a plan was left behind" if plan.exists() else None
    given = [w for n, f in inputs.items() for w in ("--input", f"{n}={f}")]
    p = call([npuc, "run", plan, *given, "--output-dir", out, "--mode", "both", "--check-hazards"], SECONDS)
    if p.returncode:
        ok = p.returncode in REFUSALS and p.stderr.strip()
        return None, None if ok else f"run ended with {p.returncode}: {last_line(p.stderr)}"
    return np.load(out / "y.npy"), None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--npuc", required=True)
    npuc = str(pathlib.Path(a.parse_args().npuc).resolve())
    with tempfile.TemporaryDirectory() as t:
        top = pathlib.Path(t)
        todo = list(models(top))
        wanted = {}
        for model, inputs in todo:
            folder = top / "sound"
            folder.mkdir(exist_ok=True)
            wanted[model], _ = run(npuc, model, inputs, "ascend-910b1", folder)
            assert wanted[model] is not None, f"{model.name} does not run on the sound machine"

        def one(case):
            base, (key, value) = case
            with tempfile.TemporaryDirectory(dir=top) as own:
                folder = pathlib.Path(own)
                target = folder / "wrong.target"
                target.write_text(f"inherit = {base}.target\nname = Wrong\n{key} = {value}  # source: test (guess)\n")
                for model, inputs in todo:
                    y, wrong = run(npuc, model, inputs, target, folder)
                    assert not wrong, f"{model.name}: {wrong}"
                    same = y is None or y.tobytes() == wanted[model].tobytes()
                    assert same, f"{model.name}: other bits than the sound machine"

        cases = [(f"{base} {key}={value}", (base, (key, value))) for base, (key, value) in itertools.product(BASES, changes())]
        return run_cases(cases, one)


if __name__ == "__main__":
    sys.exit(main())
