#!/usr/bin/env python3
"""Models with recipes that smooth, rotate and correct: on every family a plan gives the bits of the reference interpreter.

    check_recipes.py --npuc NPUC --opt NPUC-OPT [--target T ...] MODELS

MODELS: folder of fixtures. The interpreter runs the graph behind all passes for the target.
"""
import argparse
import json
import pathlib
import re
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import must, run_cases

# fixture, options of npuc quantize, are rows of the inputs of its matrix products turned?
CASES = [("resnet8-float-op13", "--scheme w8a8 --equalise smooth,correct", False),
         ("vit-tiny-torchscript-op14", "--scheme w8a8 --equalise smooth,correct", False),
         ("vit-tiny-torchscript-op14", "--scheme w8a8 --equalise smooth", True),
         ("vit-tiny-torchscript-op14", "--scheme w8a8-dynamic --equalise smooth", True),
         ("vit-tiny-torchscript-op14", "--scheme w4a16-g32 --weights awq", False)]
RUNS = 8


def calibrate(folder, scratch):
    """A folder of normal noise in the shape of the fixture's input. (its name, the folder)"""
    file = next((sorted((folder / "cases").iterdir())[0] / "inputs").glob("*.npy"))
    shape, random = np.load(file).shape, np.random.default_rng(3)
    data = scratch / "data"
    data.mkdir()
    for i in range(RUNS):
        np.savez(data / f"{i}.npz", **{file.stem: random.standard_normal(shape).astype(np.float32)})
    np.save(scratch / "x.npy", random.standard_normal(shape).astype(np.float32))
    return file.stem, data


def turn(recipe):
    """All products but convolutions with a rotation."""
    text = re.sub(r"(?m)^(\[(?!.*Conv\]).*\])$", r"\1\nrotate  = hadamard", recipe.read_text())
    assert "rotate" in text
    recipe.write_text(text)


def outputs(folder):
    names = json.loads((folder / "outputs.json").read_text()) if (folder / "outputs.json").exists() else None
    return [np.load(folder / n) for n in sorted(names.values())] if names else [np.load(f) for f in sorted(folder.glob("*.npy"))]


def check(o, name, options, turned):
    model = o.models / name / "model.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        d = pathlib.Path(scratch)
        label, data = calibrate(o.models / name, d)
        recipe, given = d / "r.recipe", f"{label}={d / 'x.npy'}"
        must([o.npuc, "quantize", model, "-o", recipe, "--quiet", "--calib", data, *options.split()])
        if turned:
            turn(recipe)
        for target in o.target:
            must([o.npuc, "compile", model, "--recipe", recipe, "-o", d / "p.plan", "--quiet", "--target", target])
            must([o.npuc, "run", d / "p.plan", "--input", given, "--output-dir", d / f"run-{target}"])
            (d / f"eval-{target}").mkdir()
            must([o.opt, "-p", "default", "--target", target, "--recipe", recipe, model, "--eval", "--input", given,
                  "--output-dir", d / f"eval-{target}"])
            got, want = outputs(d / f"run-{target}"), outputs(d / f"eval-{target}")
            assert len(got) == len(want) > 0
            for x, y in zip(got, want):
                assert x.dtype == y.dtype and x.tobytes() == y.tobytes(), f"{target}: the plan's bits are not the interpreter's"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--npuc", required=True, type=pathlib.Path)
    p.add_argument("--opt", required=True, type=pathlib.Path)
    p.add_argument("--target", action="append")
    p.add_argument("models", type=pathlib.Path)
    o = p.parse_args()
    o.target = o.target or ["ascend-910b1", "mlu370-x4"]
    return run_cases([(f"{n} {options}{', turned' if t else ''}", (n, options, t)) for n, options, t in CASES],
                     lambda c: check(o, *c))


if __name__ == "__main__":
    sys.exit(main())
