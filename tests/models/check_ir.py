#!/usr/bin/env python3
"""The graph of every model through the compiler's passes: after each pass it verifies and reads back from its text unchanged,
placed for several targets and precisions; and the reference interpreter gives the recorded outputs before and after the passes.

    check_ir.py --opt NPUC_OPT MODELS BARD
"""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import fixtures, must, run_cases

EVAL = pathlib.Path(__file__).resolve().parents[1] / "ir/eval/check_models.py"
WAYS = [["--target", "ascend-910b1"], ["--target", "ascend-910b1", "--precision", "fp16"], ["--target", "ascend-310p3", "--cache-capacity", "64"]]


def check_model(opt, model, folder):
    for way in WAYS:
        must([opt, "--round-trip", "--no-output", "-p", "default", *way, model])
    if folder:
        must([sys.executable, "-B", EVAL, "--opt", opt, folder])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opt", required=True, type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("bard", type=pathlib.Path)
    options = parser.parse_args()
    work = [(f.name, (f.model, f.folder)) for f in fixtures(options.models)]
    work += [(str(m), (m, None)) for m in sorted(options.bard.rglob("model.onnx"))]
    return run_cases(work, lambda w: check_model(options.opt, *w))


if __name__ == "__main__":
    sys.exit(main())
