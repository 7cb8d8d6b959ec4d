#!/usr/bin/env python3
"""Wrong use of the commands: one line that says what is wrong, the documented exit code, and no file left behind."""
import argparse
import pathlib
import shutil
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

BARD = "examples/bard/model.onnx"
# (arguments, exit code, what the message holds); {model} bard, {plan} its plan, {d} a scratch folder
CASES = [
    ("", 2, "no command given"),
    ("frobnicate", 2, "unknown command 'frobnicate'"),
    ("compile", 2, "an argument is missing"),
    ("compile {model}", 2, "-o PLAN is missing"),
    ("compile {model} -o {d}/x.plan --frobnicate", 2, "unknown option --frobnicate"),
    ("compile {model} -o {d}/x.plan --target", 2, "needs a value"),
    ("compile {model} -o {d}/x.plan --target ascend-999", 2, "ascend-999"),
    ("compile {model} -o {d}/x.plan --precision fp12", 2, "fp12"),
    ("compile {model} -o {d}/x.plan -D nothing=3", 2, "nothing=3"),
    ("compile {model} -o {d}/x.plan -D batch_size=8..2", 2, "batch_size=8..2"),
    ("compile {model} -o {d}/x.plan --shape nothing=1x2", 2, "nothing=1x2"),
    ("compile {model} -o {d}/x.plan --set hbm.nothing=1", None, "hbm.nothing"),
    ("compile {model} -o {d}/x.plan --tile m=0", 2, "m=0"),
    ("compile {d}/absent.onnx -o {d}/x.plan", 6, "absent.onnx"),
    ("compile {d} -o {d}/x.plan", None, "{d}"),
    ("compile {d}/text.onnx -o {d}/x.plan", 3, "text.onnx"),
    ("compile {model} -o {d}/no/such/folder/x.plan", 6, "no/such/folder"),
    ("compile {model} -o {model}", 2, "overwrite the model"),
    ("run {d}/absent.plan", 6, "absent.plan"),
    ("run {model}", 3, "model.onnx"),
    ("run {plan}", 3, "input"),
    ("run {plan} --input nothing={d}/ids.npy", 2, "no input 'nothing'"),
    ("run {plan} --input input_ids", 2, "NAME=FILE"),
    ("run {plan} --input input_ids={d}/absent.npy", 6, "absent.npy"),
    ("run {plan} --input input_ids={d}/floats.npy", 3, "expected i64"),
    ("run {plan} --input input_ids={d}/flat.npy", 3, "input_ids"),
    ("run {plan} --input input_ids={d}/text.npy", 3, "text.npy"),
    ("run {plan} --mode sideways", 2, "sideways"),
    ("run {plan} --threads none", 2, "none"),
    ("run {plan} --output-format txt", 2, "txt"),
    ("run {plan} {wide} --output-dir {d}/out", 5, "--kv-capacity"),
    ("run {plan} {inputs} --input input_ids={d}/large.npy -o {d}/y.npz", 3, "outside of"),
    ("generate {plan}", 2, "--tokens IDS is missing"),
    ("generate {plan} --tokens 1,x", 2, "1,x"),
    ("generate {plan} --tokens 1 --new many", 2, "many"),
    ("generate {plan} --tokens 99999999", 3, "outside of"),
    ("estimate {model} --context none", 2, "none"),
    ("compile {model} --precision int8-mixed-fp16 -o {d}/never.plan", 2, "quantise the model first"),
    ("estimate {model} --precision int9", 2, "int8-mixed-fp16"),
    ("estimate {model} --cores 25", 2, "more than cores.cube"),
    ("estimate {model} --cores none", 2, "none"),
    ("estimate {model} --vector-cores 0", 2, "0"),
    ("estimate {model} --force tile=16x16x16,frob=2", 2, "'frob'"),
    ("estimate {model} --force l2=no", 2, "cached or bypass"),
    ("estimate {model} --force buffers=1", 2, "always doubled"),
    ("estimate {model} --force tile=16x16", 2, "tile=16x16"),
    ("estimate {model} --input-layout nothing=NZ", 2, "nothing=NZ"),
    ("estimate {model} --output-layout logits=NHWC", 2, "logits=NHWC"),
    ("estimate {d}/absent.onnx", 6, "absent.onnx"),
    ("check {d}/absent.onnx", 6, "absent.onnx"),
    ("inspect {d}/absent.plan", 6, "absent.plan"),
    ("inspect {plan} --what nothing", 2, "nothing"),
    ("targets ascend-999", 2, "ascend-999"),
    ("explain E9999", 2, "E9999"),
]


def prepare(d, npuc, root):
    ids = np.arange(1, 6, dtype=np.int64).reshape(1, -1)
    long_past = 3000
    np.save(d / "ids.npy", ids)
    np.save(d / "mask.npy", np.ones_like(ids))
    np.save(d / "pos.npy", ids - 1)
    np.save(d / "floats.npy", ids.astype(np.float32))
    np.save(d / "flat.npy", ids.reshape(-1))
    np.save(d / "large.npy", ids + 10**6)
    np.save(d / "wide_mask.npy", np.ones((1, long_past + 5), np.int64))
    np.save(d / "past.npy", np.zeros((1, 4, long_past, 32), np.float32))
    (d / "text.onnx").write_text("this is no model\n")
    (d / "text.npy").write_text("this is no array\n")
    support.must([npuc, "compile", root / BARD, "-o", d / "bard.plan", "--quiet"])
    past = " ".join(f"--input past_key_values.{i}.{kv}={d}/past.npy" for i in range(5) for kv in ("key", "value"))
    inputs = f"--input input_ids={d}/ids.npy --input attention_mask={d}/mask.npy --input position_ids={d}/pos.npy"
    wide = f"--input input_ids={d}/ids.npy --input attention_mask={d}/wide_mask.npy --input position_ids={d}/pos.npy {past}"
    return {"d": d, "model": root / BARD, "plan": d / "bard.plan", "inputs": inputs, "wide": wide}


def check(npuc, case, names, d):
    text, code, holds = case
    before = {p: p.stat().st_mtime_ns for p in d.iterdir()}
    done = support.call([npuc] + text.format(**names).split(), 60, cwd=d)
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("  ")]
    expected = holds.format(**names)
    assert done.returncode not in (0, 70) and 0 < done.returncode < 126, f"exit {done.returncode}"
    assert code is None or done.returncode == code, f"exit {done.returncode}, expected {code}: {support.last_line(done.stderr)}"
    assert len(lines) == 1, f"{len(lines)} lines of messages, expected 1: {lines[:3]}"
    assert expected in lines[0], f"message lacks '{expected}': {lines[0]}"
    assert {p: p.stat().st_mtime_ns for p in d.iterdir()} == before, "files were left behind"


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--root", required=True, type=pathlib.Path)
    args = ap.parse_args()
    npuc, d = args.npuc.resolve(), pathlib.Path(tempfile.mkdtemp(prefix="npuc-errors-"))
    failed = 0
    try:
        names = prepare(d, npuc, args.root.resolve())
        for case in CASES: # one at a time: each compares the folder before and after
            try:
                check(npuc, case, names, d)
            except AssertionError as e:
                failed += 1
                print(f"FAILED npuc {case[0]}: {e}")
    finally:
        shutil.rmtree(d, ignore_errors=True)
    print(f"{len(CASES) - failed} of {len(CASES)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
