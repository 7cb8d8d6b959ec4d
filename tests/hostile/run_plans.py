#!/usr/bin/env python3
"""Damaged and forged plans against `npuc run`.

Damaged: bits flipped, bytes cut, filled, swapped, appended; each must be refused with a line that names the file, and leave nothing.
Forged: a field changed and all checksums made right again (seal_plan.py). The plan may run or be refused, but it must end soon, by
itself, with a documented exit code.

    run_plans.py --npuc NPUC
"""
import argparse
import pathlib
import random
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import call, must, run_cases
from seal_plan import ENTRY, TABLE, seal, section

SEED, SECONDS = 3, 10
EXTREMES = (0, 1, -1, 1 << 31, (1 << 31) - 1, 0xFFFF, 1 << 16)


def write_model(path):
    """A product, a row reduction, an elementwise region, a gather and a dynamic dimension in few bytes."""
    rng = np.random.default_rng(SEED)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["a"]),
             helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"]),
             helper.make_node("Softmax", ["b"], ["c"], axis=-1), helper.make_node("Transpose", ["c"], ["y"], perm=[1, 0])]
    weights = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in
               (("table", (12, 8)), ("w", (8, 16)))]
    graph = helper.make_graph(nodes, "small", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, "n"])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def flip(plan, at, bit):
    return plan[:at] + bytes([plan[at] ^ 1 << bit]) + plan[at + 1:]


def damaged(plan):
    """(name, bytes), none of them equal to the plan."""
    rng = random.Random(SEED)
    n, table_end = len(plan), TABLE + 11 * ENTRY
    for at in list(range(0, table_end, 5)) + [rng.randrange(n) for _ in range(150)]:
        yield f"bit of byte {at}", flip(plan, at, rng.randrange(8))
    for cut in [0, 1, 7, 8, 255, 256, table_end, n - 1, n - 8] + [rng.randrange(n) for _ in range(40)]:
        yield f"cut at {cut}", plan[:cut]
    for _ in range(60):
        size, at, fill = rng.choice((1, 8, 64, 512)), rng.randrange(n), rng.choice((b"\0", b"\xff"))
        changed = plan[:at] + fill * min(size, n - at) + plan[at + size:]
        if changed != plan:
            yield f"{size} bytes at {at} filled", changed
    for tail in (b"\0", b"\0" * 4096, b"text\n", plan):
        yield f"{len(tail)} bytes appended", plan + tail
    yield "zeros", bytes(n)
    yield "reversed", plan[::-1]


def forged(plan):
    """Fields of the sections that hold records (1 to 9), sizes and offsets of the table, and bits everywhere."""
    rng = random.Random(SEED + 1)
    places = [TABLE + k * ENTRY + part for k in range(11) for part in (0, 8, 16)]
    for number in range(1, 10):
        offset, size = section(plan, number)
        count = min(size // 4, 90 if number in (4, 5) else 25)
        places += [offset + at for at in sorted(rng.sample(range(size - 3), count))]
    for at in places:
        old = int.from_bytes(plan[at:at + 4], "little")
        for value in rng.sample(EXTREMES, 2) + [old + rng.choice((1, -1, 64))]:
            changed = plan[:at] + (value & 0xFFFFFFFF).to_bytes(4, "little") + plan[at + 4:]
            if changed != plan:
                yield f"field at {at} from {old} to {value}", seal(changed)
    for _ in range(150):
        at = rng.randrange(section(plan, 9)[0])
        yield f"bit of byte {at}, sealed", seal(flip(plan, at, rng.randrange(8)))


def check(npuc, ids, data, must_refuse):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "bad.plan").write_bytes(data)
        done = call([npuc, "run", "bad.plan", "--input", f"ids={ids}", "-o", "y.npz"], SECONDS, cwd=folder)
        assert 0 <= done.returncode <= 7, f"exit code {done.returncode}: {done.stderr[-200:]}"
        assert done.returncode or not must_refuse, "accepted"
        if done.returncode:
            assert any("bad.plan" in line for line in done.stderr.splitlines()), f"no line names the file: {done.stderr[-200:]}"
            assert len(done.stderr) < 65536 and all(c.isprintable() or c == "\n" for c in done.stderr), "unfit message"
            left = sorted(p.name for p in folder.iterdir())
            assert left == ["bad.plan"], f"files left: {left}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=lambda p: pathlib.Path(p).resolve())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        write_model(scratch / "m.onnx")
        np.save(scratch / "ids.npy", np.array([3, 1, 4, 1, 5], np.int64))
        must([options.npuc, "compile", scratch / "m.onnx", "-o", scratch / "m.plan", "--quiet"])
        plan = (scratch / "m.plan").read_bytes()
        assert seal(plan) == plan, "seal_plan.py disagrees with the compiler about checksums"
        check(options.npuc, scratch / "ids.npy", plan, False)
        must([options.npuc, "run", scratch / "m.plan", "--input", f"ids={scratch}/ids.npy"])
        cases = [(f"damaged: {name}", (data, True)) for name, data in damaged(plan)]
        cases += [(f"forged: {name}", (data, False)) for name, data in forged(plan)]
        return run_cases(cases, lambda case: check(options.npuc, scratch / "ids.npy", *case))


if __name__ == "__main__":
    sys.exit(main())
