#!/usr/bin/env python3
"""Damaged and forged plans against `npuc run`.

Damaged: bits flipped, bytes cut, filled, swapped, appended; each must be refused with a line that names the file, and leave nothing.
Forged: a field changed and all checksums made right again (seal_plan.py). The plan may run or be refused, but it must end soon, by
itself, with a documented exit code.

    run_plans.py --npuc NPUC
"""
import argparse
import itertools
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
ENTRIES = 6 # section
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


def write_cache_model(path):
    """Attention with a window on a cache."""
    sizes = {"q": ["b", "s", 32], "k": ["b", "s", 16], "v": ["b", "s", 16], "past_k": ["b", 1, "p", 16], "past_v": ["b", 1, "p", 16]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in sizes.items()]
    inputs += [helper.make_tensor_value_info("last", TensorProto.INT32, ["b"]), helper.make_tensor_value_info("total", TensorProto.INT32, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes["q"])]
    outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 1, "t", 16]) for name in ("new_k", "new_v")]
    node = helper.make_node("GroupQueryAttention", [i.name for i in inputs], ["y", "new_k", "new_v"], domain="com.microsoft",
                            num_heads=2, kv_num_heads=1, local_window_size=20)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "cached", inputs, outputs), opset_imports=opsets, ir_version=9), path)


def write_cache_inputs(folder):
    """--input arguments of two sequences of 7 new rows after 40 given ones."""
    rng = np.random.default_rng(SEED)
    values = {name: rng.standard_normal(dims).astype(np.float32) for name, dims in
              (("q", (2, 7, 32)), ("k", (2, 7, 16)), ("v", (2, 7, 16)), ("past_k", (2, 1, 40, 16)), ("past_v", (2, 1, 40, 16)))}
    values |= {"last": np.full(2, 46, np.int32), "total": np.array([47], np.int32)}
    for name, value in values.items():
        np.save(folder / f"{name}.npy", value)
    return [f"{name}={folder}/{name}.npy" for name in values]


def write_apart_model(path):
    """Caches of two sequences, whatever number of sequences the tokens have."""
    rng = np.random.default_rng(SEED)
    constants = {"table": rng.standard_normal((16, 64)).astype(np.float32), "twice": np.zeros(2, np.int64), "one": np.array([1], np.int32),
                 "parts": np.array([32, 16, 16], np.int64), "head": rng.standard_normal((32, 16)).astype(np.float32)}
    node = helper.make_node
    nodes = [node("Gather", ["input_ids", "twice"], ["two"], axis=0), node("Gather", ["table", "two"], ["x"]),
             node("Gather", ["seqlens_k", "twice"], ["last"], axis=0), node("ReduceMax", ["last"], ["most"], keepdims=0),
             node("Add", ["most", "one"], ["rows"]), node("Split", ["x", "parts"], ["q", "k", "v"], axis=2)]
    nodes += [node("GroupQueryAttention", ["q", "k", "v", "past_k", "past_v", "last", "rows"], ["y", "new_k", "new_v"], domain="com.microsoft",
                   num_heads=2, kv_num_heads=1, local_window_size=20), node("MatMul", ["y", "head"], ["logits"])]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "s"]), helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["n"])]
    inputs += [helper.make_tensor_value_info(f"past_{x}", TensorProto.FLOAT, [2, 1, "p", 16]) for x in "kv"]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, "s", 16])]
    outputs += [helper.make_tensor_value_info(f"new_{x}", TensorProto.FLOAT, [2, 1, "t", 16]) for x in "kv"]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "apart", inputs, outputs, weights), opset_imports=opsets, ir_version=9), path)


def check_sequences(npuc, scratch):
    """Tokens of more or fewer sequences than the caches have are refused, with caches in pages and with rings."""
    write_apart_model(scratch / "a.onnx")
    prompts = ["1,2,3", "4,5"]
    for words, given in itertools.product((["--kv-page", "32", "--kv-ring", "0"], ["--kv-ring", "8"]), (prompts, prompts + ["6"], prompts * 40)):
        must([npuc, "compile", scratch / "a.onnx", "-o", scratch / "a.plan", "--quiet", "--kv-capacity", "1024", *words])
        done = call([npuc, "generate", scratch / "a.plan", *(word for p in given for word in ("--tokens", p)), "--new", "2"], SECONDS)
        refused = done.returncode == 3 and "and the caches have 2" in done.stderr and len(done.stderr.splitlines()) == 1
        assert done.returncode == 0 if given is prompts else refused, done


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


def forged_caches(plan):
    """What the entry says of its caches: the last records of its section."""
    rng = random.Random(SEED + 2)
    offset, size = section(plan, ENTRIES)
    for at in rng.sample(range(offset + size // 3, offset + size - 3), min(110, size // 2)):
        old = int.from_bytes(plan[at:at + 4], "little")
        for value in (rng.choice(EXTREMES), old + rng.choice((1, -1, 64))):
            changed = plan[:at] + (value & 0xFFFFFFFF).to_bytes(4, "little") + plan[at + 4:]
            if changed != plan:
                yield f"field at {at} from {old} to {value}", seal(changed)


def check(npuc, inputs, data, must_refuse):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "bad.plan").write_bytes(data)
        given = [word for i in inputs for word in ("--input", i)]
        done = call([npuc, "run", "bad.plan", *given, "-o", "y.npz"], SECONDS, cwd=folder)
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
        ids = [f"ids={scratch}/ids.npy"]
        check(options.npuc, ids, plan, False)
        must([options.npuc, "run", scratch / "m.plan", "--input", f"ids={scratch}/ids.npy"])
        cases = [(f"damaged: {name}", (ids, data, True)) for name, data in damaged(plan)]
        cases += [(f"forged: {name}", (ids, data, False)) for name, data in forged(plan)]
        write_cache_model(scratch / "c.onnx")
        inputs = write_cache_inputs(scratch)
        for kind, words in (("pages", ["--kv-page", "32", "--kv-ring", "0"]), ("rings", ["--kv-ring", "8"])):
            must([options.npuc, "compile", scratch / "c.onnx", "-o", scratch / "c.plan", "--quiet", "--kv-capacity", "1024", *words])
            must([options.npuc, "run", scratch / "c.plan", *(word for i in inputs for word in ("--input", i))])
            plan = (scratch / "c.plan").read_bytes()
            cases += [(f"forged {kind}: {name}", (inputs, data, False)) for name, data in forged_caches(plan)]
        check_sequences(options.npuc, scratch)
        return run_cases(cases, lambda case: check(options.npuc, *case))


if __name__ == "__main__":
    sys.exit(main())
