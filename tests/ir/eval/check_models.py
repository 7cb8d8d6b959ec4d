#!/usr/bin/env python3
"""Differential test: the reference interpreter on model folders, as imported and after passes, against recorded outputs.

    check_models.py --opt npuc-opt [--passes NONE|LIST ...] DIR...
    check_models.py --passes "default --target ascend-910b1" DIR...     options of npuc-opt follow the list

A folder has model.onnx, meta.json (tolerance, file names) and cases/<k>/{inputs,outputs}/<name>.npy."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np


def difference(got, want, tolerance):
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}"
    if want.dtype.kind not in "fc":
        return None if np.array_equal(got, want) else f"{int((got != want).sum())} of {want.size} elements differ"
    close = np.isclose(got.astype(np.float64), want.astype(np.float64), rtol=tolerance["rtol"], atol=tolerance["atol"],
                       equal_nan=True)
    if close.all():
        return None
    error = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return f"{int((~close).sum())} of {want.size} elements differ, by up to {np.nanmax(error):.3g}"


# Activations become integer codes.
QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm"}


def run_case(opt, folder, case, meta, passes, out):
    """What differs from the recorded outputs, as lines. The graph is the same for every case of a model: its first one reads
    it back from text after each pass, which takes several times as long as the rest."""
    names = meta.get("files", {})
    command = [opt, "--eval", str(folder / "model.onnx"), "--output-dir", out]
    if case == min(case.parent.iterdir()):
        command += ["--round-trip"]
    if passes != "NONE":
        command += ["-p", *shlex.split(passes)]
    for f in sorted((case / "inputs").glob("*.npy")):
        command += ["--input", f"{names.get(f.name, f.stem)}={f}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        return [f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[0][:300]}"]
    faults = []
    for f in sorted((case / "outputs").glob("*.npy")):
        name = names.get(f.name, f.stem)
        path = pathlib.Path(out) / (name.replace("/", "_") + ".npy")
        fault = difference(np.load(path), np.load(f), meta["tolerance"]) if path.exists() else "no such output"
        if fault:
            faults.append(f"output {name}: {fault}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", default="npuc-opt")
    parser.add_argument("--passes", action="append", help="NONE: as imported; may be repeated (default: NONE and default)")
    parser.add_argument("--atol", type=float, default=0.0, help="allow at least this much (for other precisions)")
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    runs = []
    for folder in options.folders:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if options.atol and QUANTISED & set(meta["ops"]):
            continue  # a last bit in front of a rounding to codes is a whole code behind it
        meta["tolerance"]["atol"] = max(meta["tolerance"]["atol"], options.atol)
        for case in sorted((folder / "cases").iterdir()):
            runs += [(folder, case, meta, passes) for passes in options.passes or ["NONE", "default"]]

    def check(run):
        folder, case, meta, passes = run
        with tempfile.TemporaryDirectory() as out:
            return run_case(options.opt, folder, case, meta, passes, out)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (folder, case, _, passes), faults in zip(runs, pool.map(check, runs)):
            failed += bool(faults)
            for fault in faults[:3]:
                print(f"{folder.name}/{case.name} ({passes}): {fault}")
    print(f"{len(runs) - failed} of {len(runs)} runs agree")
    return 1 if failed or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
