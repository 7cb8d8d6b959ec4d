#!/usr/bin/env python3
"""Random graphs through everything that must agree.

    NPUC_LIB=build/release fuzz/diff.py --npuc-opt build/release/npuc-opt --seconds 60 [--seed N] [--count N] [--save FOLDER]

Per graph, bit for bit: emulated cores against the reference interpreter on the lowered graph; fused (only last results leave)
against unfused (every value leaves); one thread against two; default tiles against small ones; with hazard checks now and then.
Node by node with the emulation's own values as inputs, within a tolerance: against onnxruntime where it has the operator.
A graph that fails is cut down while it still fails the same way, and saved. Without --seed graphs are fresh; the seed of
each fault is printed and repeats it: --seed N --count 1.
"""
import argparse
import collections
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "fuzz")]
import moves
import recipes
from graphs import BF16, Case, Graph, Skip, kind_of

TARGETS = ["ascend-910b1"] * 4 + ["ascend-310p3", "ascend-950pr", "ascend-910c"]
OPSETS = [13, 17, 18, 20, 21, 23, 23, 23, 24, 25]
SMALL_TILES = ["m=16,n=16,k=16,rows=1,cols=64", "m=32,n=48,k=32,rows=3,cols=128"]
SECONDS = 40 # for one graph in all its forms
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-5}


class Fault(Exception):
    """kind: what disagrees, the same for graphs that fail for one reason; text: where."""

    def __init__(self, kind, text=""):
        super().__init__(kind, text)
        self.kind, self.text = kind, text


# ---- drawing graphs

def table(rows):
    """[(weight, recipe)]: elementwise operators from npuc's rows, families by hand."""
    plain = [recipes.elementwise(r["op"]) for r in rows
             if r["domain"] == "ai.onnx" and r["class"] == "elementwise" and r["op"] not in recipes.OTHER_FORMS]
    plain.append(recipes.elementwise("BitShift"))
    weights = {recipes.clip: 2, recipes.cast: 4, recipes.where: 3, recipes.prelu: 1, recipes.reduction: 6, recipes.arg: 2, recipes.softmax: 3,
               recipes.cumulative: 2, recipes.topk: 2, recipes.matmul: 6, recipes.gemm: 3, recipes.einsum: 1, recipes.conv: 4,
               recipes.pool: 3, recipes.norm: 4, moves.transpose: 4, moves.reshape: 6, moves.concat: 4, moves.split: 3, moves.slice_: 5,
               moves.pad: 3, moves.gather: 4, moves.scatter: 3, moves.spread: 3, moves.blocks: 1, moves.trilu: 1, moves.others: 2,
               moves.resize: 2, moves.quantise: 3, moves.integer: 2, moves.recurrent: 1, moves.attention: 1}
    return [(30 / len(plain), r) for r in plain] + [(w, r) for r, w in weights.items()]


def draw(seed, choices):
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    g = Graph(rng, int(rng.choice(OPSETS)))
    wanted = g.pick([1, 1, 2, 3, 5, 8, 12, 20, 40])
    weights = np.array([w for w, _ in choices])
    for _ in range(4 * wanted):
        if len(g.nodes) >= wanted:
            break
        recipe = choices[int(rng.choice(len(choices), p=weights / weights.sum()))][1]
        try:
            recipe(g)
        except Skip:
            pass
    return Case(g.nodes, g.values, g.inputs, g.constants, g.opset, bool(rng.random() < 0.2)), rng


# ---- comparing

def bits(array):
    return np.ascontiguousarray(array).tobytes()


def compare(kind, got, want):
    for name, w in want.items():
        g = got.get(name)
        if g is None or g.shape != w.shape or g.dtype != w.dtype:
            raise Fault(kind, f"'{name}' is {None if g is None else (g.dtype, g.shape)}, expected {(w.dtype, w.shape)}")
        if bits(g) != bits(w):
            bad = np.flatnonzero([bits(a) != bits(b) for a, b in zip(g.reshape(-1), w.reshape(-1))])
            i = int(bad[0])
            raise Fault(kind, f"'{name}' {w.dtype}{list(w.shape)}: {len(bad)} of {w.size} differ, the first at {i}: {g.reshape(-1)[i]!r}, expected {w.reshape(-1)[i]!r}")


def close(got, want, inputs):
    """Within the tolerance of the type; sums may cancel, so the largest magnitude around counts."""
    if kind_of(want.dtype) != "f":
        slack = 1 if want.dtype.itemsize == 1 and want.dtype != bool else 0
        return bool(np.all(np.abs(got.astype(np.float64) - want.astype(np.float64)) <= slack))
    g, w = got.astype(np.float64), want.astype(np.float64)
    same = (g == w) | (np.isnan(g) & np.isnan(w))
    tolerance = TOLERANCE[str(want.dtype)]
    narrow = [a for a in inputs if kind_of(a.dtype) == "f"]
    tolerance = max([tolerance, *(TOLERANCE[str(a.dtype)] for a in narrow if a.dtype.itemsize < 4)])
    scale = max([1.0, *(float(np.max(np.abs(a[np.isfinite(a)]), initial=0)) for a in (x.astype(np.float64) for x in [want, *narrow]))])
    with np.errstate(invalid="ignore"):
        return bool(np.all(same | (np.abs(g - w) <= tolerance * (np.abs(w) + scale))))


UNDECIDED = {"ArgMax", "ArgMin", "TopK", "Hardmax", "Sign", "Max", "Min", "ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool", "Clip", "Relu",
             "Cast", "CastLike", "QuantizeLinear", "DynamicQuantizeLinear", "ThresholdedRelu", "Shrink", "Elu", "Selu", "Celu", "HardSwish",
             "HardSigmoid", "LeakyRelu", "Softmax", "LogSoftmax", "AveragePool", "ScatterElements", "ScatterND", "Pow", "Mod", "PRelu", "Equal", "Resize",
             "CumSum", "CumProd", "LpPool", "GlobalLpPool", "ConvTranspose", "Conv",
             "LRN"}
NO_REFERENCE = {"Bernoulli"}
ROUNDED = {"ReduceLogSum", "ReduceLogSumExp", "ReduceL2"} # of integers: where a fraction goes, and what the logarithm of 0 is
NO_RANGE = {"ReduceMean", "DynamicQuantizeLinear"} # the mean of no elements, the scale of zeros alone


def undecided(node, inputs):
    """Does ONNX leave this open, so that another runtime may differ?"""
    strange = any(kind_of(a.dtype) == "f" and not np.all(np.isfinite(a.astype(np.float64))) for a in inputs)
    whole = node.op_type in ROUNDED and kind_of(inputs[0].dtype) in "iu"
    nothing = node.op_type in NO_RANGE and not np.any(inputs[0])
    return whole or nothing or node.op_type in NO_REFERENCE or strange and node.op_type in UNDECIDED


def check_nodes(case, known, statistics):
    """Each node alone in onnxruntime, on the emulation's inputs."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for node in case.nodes:
        model, fed = case.one_node(node)
        arrays = [case.constants[n] if n in case.constants else known[n] for n in node.input if n]
        if any(a.dtype == BF16 for a in arrays) or undecided(node, arrays) or any(known[o].size == 0 for o in node.output):
            continue
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            want = session.run(None, {n: known[n] for n in fed})
        except Exception: # pylint: disable=broad-except
            statistics["no reference " + node.op_type] += 1
            continue
        statistics["compared"] += 1
        for name, w in zip(node.output, want):
            g = known[name]
            if g.dtype != w.dtype or g.shape != w.shape or not close(g, w, arrays):
                text = f"'{name}' is {g.dtype}{list(g.shape)}, expected {w.dtype}{list(w.shape)}"
                if g.shape == w.shape:
                    bad = np.flatnonzero(~np.isclose(g.astype(np.float64), w.astype(np.float64), 1e-5, 1e-6, equal_nan=True).reshape(-1))
                    i = int(bad[0]) if len(bad) else 0
                    text += f"; {len(bad)} of {g.size} differ, the first at {i}: {g.reshape(-1)[i]!r}, expected {w.reshape(-1)[i]!r}"
                raise Fault("onnxruntime " + node.op_type, text + " for " + " ".join(f"{a.dtype}{list(a.shape)}" for a in arrays))


# ---- one case in all its forms

def interpret(npuc_opt, model, case, names, folder, *passes):
    """Results of the reference interpreter behind `passes`: (those of `names` that it wrote, its messages)."""
    folder = folder / "ref"
    folder.mkdir(exist_ok=True)
    command = [npuc_opt, *passes, "--no-output", "--eval", "--output-dir", folder, model]
    for i, (name, array) in enumerate(case.inputs.items()):
        if array.dtype == BF16:
            (folder / f"{i}.pb").write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())
            command += ["--input", f"{name}={folder / f'{i}.pb'}"]
        else:
            np.save(folder / f"{i}.npy", array)
            command += ["--input", f"{name}={folder / f'{i}.npy'}"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    results = {}
    for name in names:
        if (folder / f"{name}.npy").exists():
            results[name] = np.load(folder / f"{name}.npy")
        elif (folder / f"{name}.pb").exists():
            tensor = onnx.TensorProto.FromString((folder / f"{name}.pb").read_bytes())
            results[name] = np.frombuffer(tensor.raw_data, BF16).reshape(tuple(tensor.dims))
    return results, done.stderr if done.returncode else ""


def reference(npuc_opt, model, case, folder, target):
    """Results of the reference interpreter on the lowered graph."""
    results, message = interpret(npuc_opt, model, case, case.sinks(), folder, "-p", "default", "--target", target)
    if message:
        raise Fault("reference: " + general(message), message[-300:])
    return results


def general(message):
    """A message without names and numbers, to tell whether two faults are one."""
    return re.sub(r"[0-9]+", "N", re.sub(r"'[^']*'|\S*/\S+", "_", message.strip().splitlines()[-1] if message.strip() else ""))[:120]


def execute(npuc, model, names, feeds, options, **session):
    try:
        with npuc.compile(model, **options) as plan, npuc.Session(plan, **session) as s:
            return dict(zip(names, s.run(names, feeds)))
    except npuc.NpucError as e:
        if e.code == 4:
            raise
        raise Fault(f"exit {e.code}: {general(str(e))}", str(e)) from None


def check_case(case, settings, folder):
    """Raises Fault. Returns (statistics, values of everything)."""
    import npuc
    statistics = collections.Counter()
    folder = pathlib.Path(folder)
    leaf = folder / "leaf.onnx"
    sinks, made = case.sinks(), case.made()
    leaf.write_bytes(case.model(sinks).SerializeToString())
    options = {"target": settings["target"]}
    try:
        fused = execute(npuc, str(leaf), sinks, case.inputs, options, check_hazards=settings["hazards"])
    except npuc.NpucError as e:
        statistics["unsupported: " + general(str(e))] += 1
        return statistics, {}
    compare("reference", fused, reference(settings["npuc_opt"], leaf, case, folder, settings["target"]))
    if settings["threads"]:
        compare("two threads", execute(npuc, str(leaf), sinks, case.inputs, options, threads=2, mode="both"), fused)
    if settings["tile"]:
        compare("tiles", execute(npuc, str(leaf), sinks, case.inputs, {**options, "tile": settings["tile"]}), fused)
    everything = folder / "all.onnx"
    everything.write_bytes(case.model(made).SerializeToString())
    known = execute(npuc, str(everything), made, case.inputs, {**options, "strict": True})
    known = {**case.inputs, **known}
    again = execute(npuc, str(leaf), sinks, case.inputs, {**options, "strict": True})
    compare("unfused", again, {n: known[n] for n in sinks})
    check_nodes(case, known, statistics)
    return statistics, known


def isolated(case, settings):
    """check_case in a process of its own: (Fault or None, statistics, values)."""
    folder = tempfile.mkdtemp(prefix="diff.")
    report = pathlib.Path(folder) / "report"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        null = os.open(os.devnull, os.O_WRONLY)
        errors = os.open(os.path.join(folder, "stderr"), os.O_WRONLY | os.O_CREAT)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        try:
            result = (None, *check_case(case, settings, folder))
        except Fault as f:
            result = ((f.kind, f.text), collections.Counter(), {})
        except Exception as e: # pylint: disable=broad-except
            result = (("test: " + type(e).__name__, str(e)[:300]), collections.Counter(), {})
        report.write_bytes(pickle.dumps(result))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    try:
        if status or not report.exists():
            number = status & 127
            kind = "no end" if number == signal.SIGALRM else f"signal {number}" if number else f"exit {status >> 8}"
            return Fault(kind, (pathlib.Path(folder) / "stderr").read_text(errors="replace")[-400:]), collections.Counter(), {}
        fault, statistics, known = pickle.loads(report.read_bytes())
        return fault and Fault(*fault), statistics, known
    finally:
        shutil.rmtree(folder)


def smaller(case, settings, fault):
    """The case with as few nodes as still fail the same way."""
    known, size = dict(case.inputs), len(case.nodes) + 1
    values = evaluate_all(case, settings)
    known.update(values)
    while len(case.nodes) < size:
        size = len(case.nodes)
        for i in reversed(range(len(case.nodes))):
            if len(case.nodes) == 1:
                break
            less = case.without(i, known) if i < len(case.nodes) else case
            if any(n in case.made() and n not in less.made() and n not in less.inputs for node in less.nodes for n in node.input if n):
                continue
            found, _, _ = isolated(less, settings)
            if found and found.kind == fault.kind:
                case, fault = less, found
    return case, fault


def evaluate_all(case, settings):
    """Values of every node from the reference interpreter without passes, as far as it goes."""
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "m.onnx"
        model.write_bytes(case.model(case.made()).SerializeToString())
        return interpret(settings["npuc_opt"], model, case, case.made(), pathlib.Path(folder))[0]


def save(case, seed, fault, folder):
    folder = pathlib.Path(folder) / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model(case.sinks()), str(folder / "model.onnx"))
    for name, array in case.inputs.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "fault.txt").write_text(f"{fault.kind}\n{fault.text}\n")


def settings_for(rng, options):
    return {"npuc_opt": options.npuc_opt, "target": options.target or str(rng.choice(TARGETS)), "hazards": bool(rng.random() < 0.4),
            "threads": bool(rng.random() < 0.4), "tile": str(rng.choice(SMALL_TILES)) if rng.random() < 0.4 else ""}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc-opt", type=pathlib.Path, default=ROOT / "build/release/npuc-opt")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=1 << 60, help="graphs at most")
    parser.add_argument("--seed", type=int, help="of the first graph; the next ones count up")
    parser.add_argument("--target", help="instead of a random one")
    parser.add_argument("--save", default="diff-faults", help="folder for graphs that fail")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--stop", type=int, default=10, help="end after so many faults")
    options = parser.parse_args()
    import json
    npuc = options.npuc_opt.with_name("npuc")
    rows = json.loads(subprocess.run([npuc, "ops", "--json"], capture_output=True, check=True).stdout)
    choices = table(rows["operators"])
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    print(f"first seed {seed}", flush=True)
    end, done, faults, totals = time.monotonic() + options.seconds, 0, collections.Counter(), collections.Counter()
    while done < options.count and time.monotonic() < end and sum(faults.values()) < options.stop:
        case, rng = draw(seed, choices)
        settings = settings_for(rng, options)
        if case.nodes:
            fault, statistics, _ = isolated(case, settings)
            totals.update(statistics)
            totals["nodes"] += len(case.nodes)
            if fault:
                if not options.no_shrink:
                    case, fault = smaller(case, settings, fault)
                faults[fault.kind] += 1
                ops = " ".join(n.op_type for n in case.nodes[:12])
                print(f"FAILED seed {seed} {settings['target']} opset {case.opset}{' symbols' if case.symbols else ''}: {fault.kind}\n    {fault.text}\n    {len(case.nodes)} nodes: {ops}", flush=True)
                save(case, seed, fault, options.save)
        done, seed = done + 1, seed + 1
    print(f"{done} graphs, {totals['nodes']} nodes, {totals['compared']} compared with onnxruntime, {sum(faults.values())} faults")
    for kind, n in sorted(totals.items()):
        if kind not in ("nodes", "compared"):
            print(f"    {n} {kind}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
