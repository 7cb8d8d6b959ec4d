#!/usr/bin/env python3
"""One model, many ways to run it, the same bits: modes, threads, tile sizes, machines, and a build without SIMD.

    check_equality.py --npuc NPUC [--target T] [--also T] [--scalar NPUC] [--only PART] MODELS BARD

MODELS: folder of fixtures; BARD: the example model. --scalar: a second npuc that must agree with the first, its plans included.
--also: a second target. With --strict, where no target takes another order of operations for its kernels, its outputs must have the
bits of the first; with --precision, whose meaning a family decides, it is not compared.
"""
import argparse
import json
import pathlib
import re
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import fixtures, folder_bytes, must, run_cases

# Small tiles in every direction, so that loops run which large tiles never enter; and odd ones.
TILES = ["m=16,n=16,k=16,rows=1,cols=64", "m=32,n=48,k=32,rows=3,cols=128"]


def bard_case(folder, scratch):
    """Arguments for a prefill of 40 tokens of the example model."""
    rows = 40
    np.save(scratch / "ids.npy", np.load(folder / "eval/test.npy")[None, :rows].astype(np.int64))
    np.save(scratch / "mask.npy", np.ones((1, rows), np.int64))
    np.save(scratch / "positions.npy", np.arange(rows, dtype=np.int64)[None])
    return ["--input", f"input_ids={scratch}/ids.npy", "--input", f"attention_mask={scratch}/mask.npy",
            "--input", f"position_ids={scratch}/positions.npy"]


def run(npuc, plan, out, *options):
    """(outputs as bytes by file name, report or None)"""
    text = must([npuc, "run", plan, "--output-dir", out, "--json", *options])
    return folder_bytes(out), json.loads(text) if text.strip() else None


def compare(label, got, want):
    for name, data in want.items():
        assert name in got, f"{label}: '{name}' is missing"
        assert got[name] == data, f"{label}: '{name}' differs"


def check_ways(npuc, plan, scratch, inputs):
    """Modes and threads of one plan. Returns the outputs."""
    want, _ = run(npuc, plan, scratch / "data1", "--mode", "data", "--threads", "1", *inputs)
    compare("2 threads", run(npuc, plan, scratch / "data2", "--mode", "data", "--threads", "2", *inputs)[0], want)
    outputs, report = run(npuc, plan, scratch / "both1", "--mode", "both", "--threads", "1", *inputs)
    compare("mode both", outputs, want)
    assert report["cycles"] > 0, "mode both: no cycles"
    outputs, again = run(npuc, plan, scratch / "both2", "--mode", "both", "--threads", "2", *inputs)
    compare("mode both, 2 threads", outputs, want)
    assert again == report, "mode both: the report depends on the number of threads"
    clock = json.loads(must([npuc, "run", plan, "--mode", "clock", "--threads", "2", "--json", *inputs]))
    for key in report:
        assert clock[key] == report[key] or depends_on_data(npuc, plan), f"modes clock and both disagree about '{key}'"
    return want


def depends_on_data(npuc, plan):
    """Without data the clock assumes what steps and sizes (symbols _d0, _d1 ...) that depend on data will be."""
    text = must([npuc, "inspect", plan, "--what", "all"])
    return re.search(r"^ *\d+ (if|loop) |^_d\d+ ", text, re.MULTILINE)


def check_model(options, model, cases, compile_options=()):
    """cases: function of a scratch folder that lists (name, input arguments)."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        base = ["--target", options.target, "--quiet", *compile_options]
        plans = [scratch / f"{i}.plan" for i in range(len(TILES) + 1)]
        must([options.npuc, "compile", model, "-o", plans[0], *base])
        for plan, tile in zip(plans[1:], TILES):
            must([options.npuc, "compile", model, "-o", plan, "--tile", tile, *base])
        if options.scalar:
            must([options.scalar, "compile", model, "-o", scratch / "scalar.plan", *base])
            assert (scratch / "scalar.plan").read_bytes() == plans[0].read_bytes(), "the scalar build writes another plan"
        families = [options.target, options.also] if options.also and "--precision" not in compile_options else []
        for target in families:
            must([options.npuc, "compile", model, "-o", scratch / f"{target}.plan", *base, "--target", target, "--strict"])
        for name, inputs in cases(scratch):
            folder = scratch / name
            folder.mkdir()
            want = check_ways(options.npuc, plans[0], folder, inputs)
            for plan, tile in zip(plans[1:], TILES):
                compare(f"{name}: tiles {tile}", run(options.npuc, plan, folder / plan.stem, *inputs)[0], want)
            strict = [run(options.npuc, scratch / f"{t}.plan", folder / t, *inputs)[0] for t in families]
            for got in strict[1:]:
                compare(f"{name}: {options.also}", got, strict[0])
            if options.scalar:
                compare(f"{name}: scalar build", run(options.scalar, plans[0], folder / "scalar", *inputs)[0], want)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("--target", default="ascend-910b1")
    parser.add_argument("--also", default="")
    parser.add_argument("--scalar", type=pathlib.Path)
    parser.add_argument("--only", default="", help="fixtures whose name holds this")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("bard", type=pathlib.Path)
    options = parser.parse_args()
    work = []
    for fixture in fixtures(options.models, options.only):
        chosen = [c for c in fixture.cases() if c.name.endswith("b2")] or fixture.cases()
        work.append((fixture.name, (fixture.model, lambda _, f=fixture, cs=chosen: [(c.name, f.input_args(c)) for c in cs])))
    for precision in ("fp32", "fp16"):
        work.append((f"bard {precision}", (options.bard / "model.onnx", lambda s: [("prefill", bard_case(options.bard, s))],
                                          ("--precision", precision))))
    return run_cases(work, lambda w: check_model(options, *w))


if __name__ == "__main__":
    sys.exit(main())
