#!/usr/bin/env python3
"""The same model and flags give the same plan bytes, wherever and however the compiler runs.

    check_plans.py --npuc NPUC MODELS BARD

MODELS: folder of fixtures; BARD: the example model.
"""
import argparse
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import fixtures, must, run_cases

BASE = ["--target", "ascend-910b1", "--quiet"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_model(npuc, model):
    """Folders, paths, environment, an existing output and one processor: nothing of it is in the plan."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "copy").mkdir()
        for part in model.parent.iterdir():
            if part.is_file():
                shutil.copy(part, scratch / "copy" / part.name)
        must([npuc, "compile", model.resolve(), "-o", scratch / "a.plan", *BASE])
        want = digest(scratch / "a.plan")
        ways = {
            "relative paths": dict(cwd=scratch / "copy", command=[npuc, "compile", model.name, "-o", "../b.plan", *BASE]),
            "another environment": dict(cwd=scratch, env={"LC_ALL": "C", "TZ": "Asia/Tokyo", "MALLOC_PERTURB_": "165", "HOME": "/"},
                                        command=[npuc, "compile", f"copy/{model.name}", "-o", "b.plan", *BASE]),
            "an existing plan, messages, checks": dict(cwd=scratch, command=[
                npuc, "compile", model.resolve(), "-o", "b.plan", "--verify-each", "--target", "ascend-910b1"]),
            "one processor": dict(cwd=scratch, preexec_fn=lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]),
                                  command=[npuc, "compile", model.resolve(), "-o", "b.plan", *BASE]),
        }
        for name, way in ways.items():
            command = way.pop("command")
            must(command, **way)
            assert digest(scratch / "b.plan") == want, f"{name}: the plan differs"
        left = sorted(p.name for p in scratch.rglob("*") if p.is_file() and p.parent.name != "copy")
        assert left == ["a.plan", "b.plan"], f"files left: {left}"


def check_flags(npuc, model):
    """Flags that matter do change the plan: the comparison above sees what it should."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        seen = {}
        for flags in ([], ["--precision", "fp16"], ["--kv-capacity", "64"], ["--tile", "m=16"], ["--target", "ascend-310p3"]):
            must([npuc, "compile", model, "-o", scratch / "a.plan", "--quiet", *flags])
            seen.setdefault(digest(scratch / "a.plan"), []).append(" ".join(flags) or "none")
        assert len(seen) == 5, f"flags without effect: {[v for v in seen.values() if len(v) > 1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("bard", type=pathlib.Path)
    options = parser.parse_args()
    models = [(f.name, f.model) for f in fixtures(options.models)] + [("bard", options.bard / "model.onnx")]
    work = [(name, (check_model, model)) for name, model in models]
    work.append(("flags", (check_flags, options.bard / "model.onnx")))
    return run_cases(work, lambda w: w[0](options.npuc, w[1]))


if __name__ == "__main__":
    sys.exit(main())
