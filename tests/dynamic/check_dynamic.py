#!/usr/bin/env python3
"""One plan for ranges of sizes, or for gears, against a compilation per size: the same bits, and no more time than a limit allows.

    check_dynamic.py --npuc NPUC [--target T] [--points N] [--only NAME] [--skip NAME,NAME] [--bits NAME,NAME] [--table] MODELS

MODELS: folder of fixtures. --table prints every point with both times.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import call, folder_bytes, must, run_cases
from models import MODELS

LIMIT = 0.05  # of the static compilation's time; to be faster is no fault


def points(ranges, n, rng):
    """The corners first, then sizes spread evenly over their logarithm: small ones matter as much as large ones."""
    out = [{k: lo for k, (lo, _) in ranges.items()}, {k: hi for k, (_, hi) in ranges.items()}]
    while len(out) < n:
        out.append({k: int(round(np.exp(rng.uniform(np.log(max(lo, 1)), np.log(hi))))) for k, (lo, hi) in ranges.items()})
    return out[:n]


def run(npuc, plan, out, inputs):
    report = json.loads(must([npuc, "run", plan, "--mode", "both", "--output-dir", out, "--json", *inputs]))
    return folder_bytes(out), report["us"]


def save_inputs(folder, feed):
    folder.mkdir()
    args = []
    for i, (name, value) in enumerate(feed.items()):
        np.save(folder / f"{i}.npy", value)
        args += ["--input", f"{name}={folder}/{i}.npy"]
    return args


def check(options, entry):
    name, make, ranges, feeds = entry
    rng = np.random.default_rng(20)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = options.models / make / "model.onnx" if isinstance(make, str) else scratch / f"{name}.onnx"
        if not isinstance(make, str):
            make(model)
        base = ["--target", options.target, "--quiet", "--kv-capacity", "256"]
        spans = [w for k, (lo, hi) in ranges.items() for w in ("-D", f"{k}={lo}..{hi}")]
        must([options.npuc, "compile", model, "-o", scratch / "all.plan", *base, *spans])
        faults, worst = [], 0
        for i, sizes in enumerate(points(ranges, options.points, rng)):
            inputs = save_inputs(scratch / f"in{i}", feeds(sizes, rng))
            fixed = [w for k, v in sizes.items() for w in ("-D", f"{k}={v}")]
            must([options.npuc, "compile", model, "-o", scratch / "one.plan", *base, *fixed])
            want, static = run(options.npuc, scratch / "one.plan", scratch / f"one{i}", inputs)
            got, dynamic = run(options.npuc, scratch / "all.plan", scratch / f"all{i}", inputs)
            text = " ".join(f"{k}={v}" for k, v in sizes.items())
            if got != want:
                faults.append(f"{text}: other bits in {[k for k in want if got.get(k) != want[k]]}")
            error = dynamic / static - 1
            worst = max(worst, error, key=abs)
            if error > LIMIT and name not in options.bits.split(","):
                faults.append(f"{text}: {dynamic:.2f} us, compiled for these sizes {static:.2f} us ({100 * error:+.1f} %)")
            if options.table:
                print(f"{name:12} {text:40} {dynamic:10.2f} {static:10.2f} us {100 * error:+6.1f} %", flush=True)
        if options.table:
            print(f"{name:12} worst {100 * worst:+.1f} %", flush=True)
        assert not faults, f"{len(faults)} of {options.points} points: " + "; ".join(faults[:4])


def check_gears(options, _):
    """Two dimensions with gears: an entry per combination, weights once, messages for what is no gear."""
    make = next(e[1] for e in MODELS if e[0] == "block")
    rng = np.random.default_rng(21)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = scratch / "block.onnx"
        make(model)
        base = [options.npuc, "compile", model, "--target", options.target, "--quiet", "-o"]
        must([*base, scratch / "gears.plan", "-D", "batch=1,3", "-D", "seq=16,64"])
        for i, (batch, seq) in enumerate([(1, 16), (3, 64), (1, 64), (3, 16)]):
            inputs = save_inputs(scratch / f"in{i}", {"x": rng.standard_normal((batch, seq, 256)).astype(np.float16)})
            must([*base, scratch / "one.plan", "-D", f"batch={batch}", "-D", f"seq={seq}"])
            want, static = run(options.npuc, scratch / "one.plan", scratch / f"one{i}", inputs)
            got, gear = run(options.npuc, scratch / "gears.plan", scratch / f"gears{i}", inputs)
            assert got == want, f"batch {batch}, seq {seq}: other bits"
            assert abs(gear / static - 1) < 0.005, f"batch {batch}, seq {seq}: {gear} us, alone {static} us"
        grown = (scratch / "gears.plan").stat().st_size / (scratch / "one.plan").stat().st_size
        assert grown < 1.3, f"the plan with four gears is {grown:.2f} times one of them"
        inputs = save_inputs(scratch / "odd", {"x": np.zeros((1, 40, 256), np.float16)})
        refuse(3, ("'x'", "axis 1", "seq = 40", "16, 64"), options.npuc, "run", scratch / "gears.plan", *inputs)
        refuse(3, ("seq", "gears 16, 64"), options.npuc, "run", scratch / "gears.plan", "--mode", "clock", "-D", "batch=1")


def refuse(code, parts, *command):
    done = call(command)
    assert done.returncode == code, f"{command[1:]}: exit {done.returncode}, expected {code}: {done.stderr}"
    missing = [p for p in parts if p not in done.stderr]
    assert not missing and done.stderr.count("\n") <= 1, f"the message lacks {missing}: {done.stderr}"


def check_messages(options, _):
    """Sizes that cannot be: at compile time, and when inputs are bound."""
    make = next(e[1] for e in MODELS if e[0] == "product")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model, plan = scratch / "product.onnx", scratch / "a.plan"
        make(model)
        base = [options.npuc, "compile", model, "--target", options.target, "--quiet", "-o", plan]
        for bad in ("m=1..4,8", "m=4,4", "m=-1", "m=8..2", "m=", "=4", "m=99999999999999999999", "m=3000000000", "m=1,", "m=0x10"):
            refuse(2, (bad,), *base, "-D", bad)
        refuse(2, ("m",), *base, "-D", "m")
        refuse(2, ("given twice",), *base, "-D", "m=4", "-D", "m=5")
        refuse(2, ("nope=4", "no dimension"), *base, "-D", "nope=4")
        many = ",".join(str(i) for i in range(1, 41))
        refuse(2, ("combinations",), *base, "-D", f"m={many}", "-D", f"n={many}")
        must([*base, "-D", "batch=1..4", "-D", "m=2..16"])
        a = lambda *shape: np.zeros(shape, np.float16)
        for i, (x, y, parts) in enumerate([(a(5, 4, 8), a(5, 8, 3), ("'a'", "axis 0", "batch = 5", "1..4")),
                                           (a(2, 1, 8), a(2, 8, 3), ("'a'", "axis 1", "m = 1", "2..16")),
                                           (a(2, 17, 8), a(2, 8, 3), ("m = 17", "2..16")),
                                           (a(0, 4, 8), a(0, 8, 3), ("batch = 0", "1..4")),
                                           (a(2, 4, 8), a(2, 9, 3), ("'b'", "axis 1 is 9", "k = 8", "as input 'a' has it"))]):
            refuse(3, parts, options.npuc, "run", plan, *save_inputs(scratch / f"in{i}", {"a": x, "b": y}))
        refuse(3, ("'b'", "not given"), options.npuc, "run", plan, "-D", "n=3", *save_inputs(scratch / "half", {"a": a(2, 4, 8)}))
        refuse(3, ("not known",), options.npuc, "run", plan, "--mode", "clock", "-D", "batch=1")
        must([*base, "-D", "batch=2"])
        refuse(3, ("'a'", "axis 0", "batch = 2"), options.npuc, "run", plan, *save_inputs(scratch / "three", {"a": a(3, 4, 8), "b": a(3, 8, 3)}))
        must([options.npuc, "run", plan, "--mode", "clock", "-D", "batch=2", "-D", "m=3", "-D", "k=4", "-D", "n=5"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("--target", default="ascend-910b1")
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="", help="names of cases to leave out")
    parser.add_argument("--bits", default="", help="names of cases whose times are not held to the limit")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("models", type=pathlib.Path)
    options = parser.parse_args()
    work = [(e[0], (check, e)) for e in MODELS]
    work += [("gears", (check_gears, None)), ("messages", (check_messages, None))]
    return run_cases([w for w in work if options.only in w[0] and w[0] not in options.skip.split(",")], lambda w: w[0](options, w[1]))


if __name__ == "__main__":
    sys.exit(main())
