#!/usr/bin/env python3
"""Every scheme of `npuc quantize` on models with known outputs: each must quantise, compile for each target and run, to
much the same values on all of them (attention is summed in another order where it is a kernel), near those of the model as it is.

    fuzz/schemes.py --npuc build/npuc --dir FIXTURES [--only PART] [--scheme S ...] [--target T ...] [--least 0.9]

A fixture is a folder with model.onnx and cases/<k>/{inputs,outputs}/<name>.npy. Calibration: of language models random tokens, of others the
inputs of their cases. A line per fault; the least cosine of each model and scheme with --show.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support import call, last_line

SCHEMES = ["w8a8", "w8a8-zero", "w8a8-dynamic", "w8a16", "w4a16-g32", "w4a8-g32", "w8a16+kv8", "kv4", "w8a8-dynamic+k8v4", "fp8", "hif8",
           "mxfp8", "mxfp4", "nvfp4"]
NOTHING = ("nothing to quantise", "keeps no KV cache") # weights have codes already; a model without caches
ALIKE = 0.999 # a last bit that differs may move a code
TARGETS = ["ascend-910b1", "mlu370-x4", "ascend-950pr"]
ROUGH = {"kv4": 0.85, "w4a16-g32": 0.85, "w4a8-g32": 0.85, "mxfp4": 0.8, "nvfp4": 0.8, "w8a8-dynamic+k8v4": 0.85} # 4 bits, few channels


def inputs_of(fixture, case, meta):
    names = meta.get("files", {})
    return {names.get(f.name, f.stem): f for f in sorted((case / "inputs").glob("*.npy"))}


def calibration(fixture, meta, d):
    """Data of its own for the model: tokens where it takes texts of any length, else the inputs of its cases."""
    cases = [inputs_of(fixture, c, meta) for c in sorted((fixture / "cases").iterdir())]
    ids = {np.load(c["input_ids"]).shape[-1] for c in cases if "input_ids" in c and "encoder_hidden_states" not in c}
    if len(ids) > 1:
        most = max(int(np.load(c["input_ids"]).max()) for c in cases)
        np.save(d / "calib.npy", np.random.default_rng(5).integers(1, most + 1, (4, 12)))
        return d / "calib.npy"
    folder = d / "calib"
    folder.mkdir()
    for i, c in enumerate(cases):
        np.savez(folder / f"{i}.npz", **{name: np.load(f) for name, f in c.items()})
    return folder


def cosine(a, b):
    x, y = (v.astype(np.float64).ravel() for v in (a, b))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm else 1.0 if np.array_equal(x, y) else 0.0


class Trial:
    """A model, a scheme, and what is wrong with them."""

    def __init__(self, o, fixture, scheme, d):
        self.o, self.fixture, self.scheme, self.d = o, fixture, scheme, d
        self.meta = json.loads((fixture / "meta.json").read_text(encoding="utf-8"))
        self.faults, self.least = [], 1.0

    def fault(self, what, said):
        self.faults.append(f"{self.fixture.name} {self.scheme}: {what}: {last_line(said)}")

    def run(self, what, *command):
        done = call([self.o.npuc, *command], self.o.limit)
        if done.returncode and not any(text in done.stderr for text in NOTHING):
            self.fault(f"{what}, exit {done.returncode}", done.stderr)
        return done.returncode == 0

    def quantize(self):
        """False too where weights have codes already."""
        calib = calibration(self.fixture, self.meta, self.d)
        return self.run("quantize", "quantize", self.fixture / "model.onnx", "--scheme", self.scheme, "--calib", calib, "--parts", "1", "-o",
                        self.d / "r", "--quiet")

    def outputs(self, target, case):
        out = self.d / "out"
        feeds = [w for name, f in inputs_of(self.fixture, case, self.meta).items() for w in ("--input", f"{name}={f}")]
        if not self.run(f"run {case.name} on {target}", "run", self.d / f"{target}.plan", "--output-dir", out, *feeds):
            return None
        return {n: np.load(out / f) for n, f in json.loads((out / "outputs.json").read_text(encoding="utf-8")).items()}

    def judge(self, case, got):
        for name, y in got.items():
            want = case / "outputs" / f"{name}.npy"
            if want.exists() and y.dtype.kind == "f" and not name.startswith("present"):
                self.least = min(self.least, cosine(y, np.load(want)))
            if y.dtype.kind == "f" and not np.isfinite(y.astype(np.float64)).all() and np.isfinite(np.load(want).astype(np.float64)).all():
                self.fault(f"{case.name}, {name}", "not finite")

    def compare(self, case, targets):
        first = None
        for target in targets:
            got = self.outputs(target, case)
            if got is None:
                continue
            if first is None:
                first = got
                self.judge(case, got)
                continue
            for name, y in got.items():
                if y.dtype.kind == "f" and cosine(y, first[name]) < ALIKE:
                    self.fault(f"{case.name} on {target}", f"{name} is not what {targets[0]} makes: cosine {cosine(y, first[name]):.5f}")

    def go(self):
        if not self.quantize():
            return self
        targets = [t for t in self.o.target if self.run(f"compile for {t}", "compile", self.fixture / "model.onnx", "--recipe", self.d / "r",
                                                        "--target", t, "-o", self.d / f"{t}.plan", "--quiet")]
        for case in sorted((self.fixture / "cases").iterdir())[:self.o.cases]:
            self.compare(case, targets)
        if self.least < min(self.o.least, ROUGH.get(self.scheme, 1)):
            self.fault("outputs", f"cosine {self.least:.4f}")
        return self


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--npuc", required=True)
    p.add_argument("--dir", type=pathlib.Path, required=True, action="append")
    p.add_argument("--only", default="")
    p.add_argument("--scheme", action="append")
    p.add_argument("--target", action="append")
    p.add_argument("--cases", type=int, default=2, help="the first N cases of each model")
    p.add_argument("--least", type=float, default=0.97, help="the least cosine of outputs")
    p.add_argument("--limit", type=int, default=120, help="seconds of a command")
    p.add_argument("--show", action="store_true")
    o = p.parse_args()
    o.target = o.target or TARGETS
    faults = 0
    for fixture in (f for folder in o.dir for f in sorted(folder.iterdir()) if (f / "model.onnx").exists() and o.only in f.name):
        for scheme in o.scheme or SCHEMES:
            with tempfile.TemporaryDirectory() as d:
                trial = Trial(o, fixture, scheme, pathlib.Path(d)).go()
            faults += len(trial.faults)
            for line in trial.faults:
                print(line, flush=True)
            if o.show:
                print(f"  {fixture.name} {scheme}: {trial.least:.5f}", flush=True)
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
