#!/usr/bin/env python3
"""The examples of every command's --help run as printed, in a scratch folder with the project's examples beside them."""
import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support


def commands(npuc):
    text = support.must([npuc, "--help"])
    return re.findall(r"^  ([a-z]+) +\S", text, re.M)


def examples(npuc, command):
    text = support.must([npuc, command, "--help"])
    assert "usage: npuc " + command in text, "no usage line"
    tail = text.split("\nexamples:\n")
    return [line.strip() for line in tail[1].splitlines() if line.strip().startswith("npuc ")] if len(tail) > 1 else []


def prepare(scratch, root):
    """What the examples take for granted: the example model and the inputs of a prefill of bard."""
    os.symlink(root / "examples", scratch / "examples")
    ids = np.load(root / "examples/bard/eval/prefill_ids.npy").astype(np.int64).reshape(1, -1)
    np.save(scratch / "ids.npy", ids)
    np.save(scratch / "mask.npy", np.ones_like(ids))
    np.save(scratch / "pos.npy", np.arange(ids.size, dtype=np.int64).reshape(1, -1))


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--root", required=True, type=pathlib.Path)
    args = ap.parse_args()
    npuc, root = args.npuc.resolve(), args.root.resolve()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="npuc-examples-"))
    failed = total = 0
    try:
        prepare(scratch, root)
        for command in commands(npuc):
            for line in examples(npuc, command):
                total += 1
                done = support.call([npuc] + line.split()[1:], 60, cwd=scratch)
                if done.returncode != 0:
                    failed += 1
                    print(f"FAILED {line}: exit {done.returncode}: {support.last_line(done.stderr)}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{total - failed} of {total} examples run")
    return 1 if failed or total < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
