#!/usr/bin/env python3
"""Compile the example model for an emulated NPU, continue a prompt, show what the cores did.

usage: demo.py NPUC [--target T] [--new N] [--prompt TEXT]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "python"))


def say(text=""):
    print(text, flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("npuc")
    ap.add_argument("--target", default="ascend-910b1")
    ap.add_argument("--new", type=int, default=64)
    ap.add_argument("--prompt", default="ROMEO.\n")
    args = ap.parse_args()
    os.environ.setdefault("NPUC_LIB", str(pathlib.Path(args.npuc).resolve().parent))
    from npuc import Generator

    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "bard.plan"
        begin = time.monotonic()
        say(f"$ npuc compile examples/bard/model.onnx --target {args.target} -o bard.plan")
        subprocess.run([args.npuc, "compile", HERE / "model.onnx", "--target", args.target, "-o", plan], check=True)
        say(f"\n$ npuc generate bard.plan --tokens ... --new {args.new} --mode both      ({args.prompt.strip()!r} as tokens)\n")
        with Generator(plan, HERE, bos=0, mode="both") as bard:
            result, ids = bard.generate(args.prompt, args.new), ",".join(map(str, bard.encode(args.prompt)))
        seconds = time.monotonic() - begin
        say("\n".join("  | " + line for line in (args.prompt + result.text).splitlines()))
        say(f"\n$ npuc generate bard.plan --tokens ... --new {args.new} --profile")
        subprocess.run([args.npuc, "generate", plan, "--tokens", ids, "--new", str(args.new), "--profile"], check=True)
        say(f"\n$ npuc check examples/bard/model.onnx --target {args.target}")
        subprocess.run([args.npuc, "check", HERE / "model.onnx", "--target", args.target], check=True)
    say(f"\nCompiled and generated {len(result.tokens)} tokens, with the clock, in {seconds:.1f} s on this computer.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
