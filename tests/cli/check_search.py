#!/usr/bin/env python3
"""npuc quantize --search and --sensitivity: limits hold as measured by compare and by plans, the points beside the
chosen one do not, recipes carry their reasons and data, the same bytes twice."""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

SCHEMES = "w8a16,w8a8-dynamic,w4a16-g16"


def model(path, rng):
    """Two products of one value, then a chain; the last has few outputs."""
    sizes = {"left": (32, 48), "right": (32, 48), "middle": (48, 64), "last": (64, 8)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), "w_" + n) for n, s in sizes.items()]
    make = helper.make_node
    nodes = [make("MatMul", ["x", "w_left"], ["a"], name="left"), make("MatMul", ["x", "w_right"], ["b"], name="right"),
             make("Tanh", ["a"], ["t"], name="tanh"), make("Mul", ["t", "b"], ["c"], name="gate"),
             make("MatMul", ["c", "w_middle"], ["d"], name="middle"), make("Relu", ["d"], ["e"], name="relu"),
             make("MatMul", ["e", "w_last"], ["y"], name="last")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, [6, 32])], [info("y", TensorProto.FLOAT, [6, 8])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)


class Bench:
    def __init__(self, npuc, d):
        rng = np.random.default_rng(11)
        self.npuc, self.d, self.model, self.data = npuc, d, d / "m.onnx", d / "data"
        model(self.model, rng)
        self.data.mkdir()
        for i in range(3):
            np.savez(self.data / f"{i}.npz", x=rng.standard_normal((6, 32)).astype(np.float32))

    def search(self, limit, recipe, *options):
        out = support.must([self.npuc, "quantize", self.model, "--search", limit, "--schemes", SCHEMES, "--calib", self.data,
                            "-o", recipe, "--json", "--quiet", *options])
        return json.loads(out)

    def noise(self, recipe):
        out = support.must([self.npuc, "compare", self.model, "--recipe", recipe, "--calib", self.data, "--json", "--quiet"])
        return json.loads(out)["comparisons"][0]["effects"]["all"]["noise"]

    def weight_bytes(self, recipe):
        out = support.must([self.npuc, "estimate", self.model, "--recipe", recipe, "--json"])
        return json.loads(out)["ascend-910b1"]["run"]["weights_bytes"]


def choices(recipe):
    """{node: its line of the weight, or keep}"""
    return dict(re.findall(r"^\[(.*)\]\n(keep|weight  = \S+)", recipe.read_text(), re.M))


def check_drop(b):
    r = b.d / "drop.recipe"
    all_cheapest = b.search("max-drop=900%", r)
    assert all_cheapest["chosen"] == len(all_cheapest["points"]) - 1, all_cheapest
    most = all_cheapest["points"][-1]["drop"] * 0.6
    j = b.search(f"max-drop={most}", r)
    point, following = j["points"][j["chosen"]], j["points"][j["chosen"] + 1]
    assert point["drop"] <= most < following["drop"], (j["chosen"], j["points"])
    assert abs(b.noise(r) ** 0.5 / point["drop"] - 1) < 1e-9, (b.noise(r) ** 0.5, point)
    assert b.weight_bytes(r) == point["weight_bytes"], (b.weight_bytes(r), point)
    chosen = choices(r)
    assert set(chosen) == {"left", "right", "middle", "last"} and chosen["left"] == chosen["right"], chosen
    assert len(set(chosen.values())) > 1, f"nothing is mixed: {chosen}"
    assert r.read_text().count("search, noise") == 4, r.read_text()
    first = r.read_bytes()
    assert b.search(f"max-drop={most}", r) == j and r.read_bytes() == first, "a second search writes something else"
    losses = [p["expected_loss"] for p in j["points"]]
    costs = [p["expected_weight_bytes"] for p in j["points"]]
    assert costs == sorted(costs, reverse=True) and losses[0] == 0, (losses, costs)
    assert b.search("max-drop=0", r)["chosen"] == 0 and set(choices(r).values()) == {"keep"}, r.read_text()


def check_data(b):
    """Codes that an algorithm made from data come from the data files of the schemes."""
    r = b.d / "data.recipe"
    j = b.search("max-drop=8%", r, "--weights", "gptq")
    point = j["points"][j["chosen"]]
    assert (b.d / "data.recipe.safetensors").exists() and "data    = data.recipe.safetensors" in r.read_text(), r.read_text()
    assert abs(b.noise(r) ** 0.5 / point["drop"] - 1) < 1e-9, (b.noise(r) ** 0.5, point)


def check_costs(b):
    r = b.d / "bytes.recipe"
    whole, least = (b.search(f"max-drop={x}", r)["points"] for x in ("0", "900%"))
    most = (whole[0]["weight_bytes"] + least[-1]["weight_bytes"]) // 2
    j = b.search(f"max-bytes={most}", r)
    assert b.weight_bytes(r) == j["points"][j["chosen"]]["weight_bytes"] <= most, j["points"]
    assert j["points"][j["chosen"] - 1]["weight_bytes"] > most, j["points"]
    us = b.search("max-drop=900%", r, "--cost", "us", "--target", "mlu370-x4")
    assert us["target"] == "mlu370-x4" and us["points"][us["chosen"]]["us"] > 0, us
    slow = us["points"][us["chosen"]]["us"]
    j = b.search(f"max-us={slow * 1.001}", r, "--target", "mlu370-x4")
    assert j["points"][j["chosen"]]["us"] <= slow * 1.001, j["points"]


def check_caches(b, root):
    """KV caches are one more choice: what is measured is what compare and the plan have, the recipe has its matrices."""
    m, ids, r = root / "tests/models/llama-genai-fp32/model.onnx", b.d / "ids.npy", b.d / "kv.recipe"
    np.save(ids, np.random.default_rng(5).integers(0, 320, (2, 40)))

    def search(limit, *options):
        return json.loads(support.must([b.npuc, "quantize", m, "--search", limit, "--schemes", "w4a16-g32,kv8,kv4", "--calib", ids, "-o", r,
                                        "--context", "64", "--json", "--quiet", *options]))

    j = search("max-drop=900%")
    whole, last = search("max-drop=0")["points"][0], j["points"][-1]
    assert not re.search("^kv ", r.read_text(), re.M) and whole["caches"] == "keep" and last["caches"] == "kv4", (whole, last)
    kinds = [p["caches"] for p in j["points"]]
    assert sorted(kinds, key=("keep", "kv8", "kv4").index) == kinds, kinds
    assert j["units"][-1]["caches"] is True and set(j["units"][-1]["loss"]) == {"kv8", "kv4"}, j["units"][-1]
    for limit in ("max-drop=900%", f"max-bytes={(last['weight_bytes'] + last['cache_bytes']) * 1.02}"):
        j = search(limit)
        point, first, data = j["points"][j["chosen"]], r.read_bytes(), b.d / "kv.recipe.safetensors"
        codes = data.read_bytes()
        assert point["caches"] == "kv4" and re.search("^kv +=.*int4", r.read_text(), re.M) and r.read_text().count("turn    = data") > 0, r.read_text()
        compared = json.loads(support.must([b.npuc, "compare", m, "--recipe", r, "--calib", ids, "--json", "--quiet"]))
        assert abs(compared["comparisons"][0]["effects"]["all"]["kl"]["mean"] / point["kl"] - 1) < 1e-9, (compared["comparisons"][0]["effects"], point)
        assert search(limit) == j and r.read_bytes() == first and data.read_bytes() == codes, "a second search writes something else"
    assert point["weight_bytes"] + point["cache_bytes"] <= float(limit.split("=")[1]), point
    table = support.must([b.npuc, "quantize", m, "--search", limit, "--schemes", "w4a16-g32,kv8,kv4", "--calib", ids, "-o", r, "--quiet"])
    assert re.search(r"^point +keep +w4a16-g32 +caches ", table, re.M) and re.search(r" kv4 .*<- chosen$", table, re.M), table


def check_sensitivity(b):
    r, table = b.d / "s.recipe", b.d / "s.csv"
    run = [b.npuc, "quantize", b.model, "--scheme", "w4a16-g16", "--calib", b.data, "-o", r, "--sensitivity", "--quiet"]
    c = json.loads(support.must([*run, "--json", "--each", "1", "--csv", table]))["sensitivity"]["comparisons"][0]
    alone = {p["name"]: p["isolated"]["noise"] for p in c["products"]}
    assert c["ranking"] == sorted(alone, key=lambda n: -alone[n]), (c["ranking"], alone)
    assert len(table.read_text().splitlines()) == 5, table.read_text()
    text = support.must(run)
    assert all(re.search(rf"^{n} +i[48] (g16|channel) ", text, re.M) for n in alone), text


def check_refusals(b):
    start = [b.npuc, "quantize", b.model, "-o", b.d / "none.recipe", "--quiet"]
    for options, code, words in [
        (["--search", "max-drop=1%", "--schemes", "w8a16"], 2, "--calib"),
        (["--search", "max-drop=1%", "--calib", b.data], 2, "--schemes"),
        (["--search", "max-fun=1", "--schemes", "w8a16", "--calib", b.data], 2, "max-fun"),
        (["--search", "max-bytes=1 stone", "--schemes", "w8a16", "--calib", b.data], 2, "stone"),
        (["--search", "max-drop=1%", "--schemes", "w1a1", "--calib", b.data], 2, "w1a1"),
        (["--search", "max-drop=1%", "--schemes", "w8a16+kv8", "--calib", b.data], 2, "w8a16+kv8"),
        (["--search", "max-drop=1%", "--schemes", "w8a16,kv8", "--calib", b.data], 3, "keeps no KV cache"),
        (["--search", "max-bytes=1", "--schemes", "w8a16", "--calib", b.data], 1, "at least"),
        (["--scheme", "w8a16", "--sensitivity"], 2, "--calib"),
    ]:
        done = support.call([*start, *options])
        assert done.returncode == code and words in done.stderr, (options, done.returncode, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "--search" not in options or not (b.d / "none.recipe").exists(), "a refused search leaves a recipe"


def check_open_sizes(b):
    """Dimensions that the model leaves open have the sizes of the data when plans are timed, those of -D where it says so."""
    m = onnx.load(b.model)
    for v in [*m.graph.input, *m.graph.output]:
        v.type.tensor_type.shape.dim[0].dim_param = "rows"
    open_model = b.d / "open.onnx"
    onnx.save(m, open_model)
    tables = []
    for path, *more in [(b.model,), (open_model,), (open_model, "-D", "rows=6")]:
        tables.append(json.loads(support.must([b.npuc, "quantize", path, "--search", "max-us=1000", "--schemes", SCHEMES, "--calib", b.data, "-o",
                                               b.d / "open.recipe", "--json", *more])))
    fixed, by_data, by_option = ([p["us"] for p in t["points"] if "us" in p] for t in tables)
    assert fixed and fixed == by_option and len(by_data) == len(fixed), (fixed, by_option, by_data)
    assert all(abs(x / y - 1) < 0.1 for x, y in zip(by_data, fixed)), (by_data, fixed) # its tiles are those of open sizes


def check_interrupt(b, root):
    """Ctrl-C leaves nothing in the folder for temporary files."""
    scratch, example = b.d / "scratch", root / "examples/bard"
    scratch.mkdir()
    run = subprocess.Popen([b.npuc, "quantize", example / "model.onnx", "--search", "max-drop=1%", "--schemes", "w8a16,w4a16-g32", "--calib",
                            example / "eval/calib.npy", "-o", b.d / "none.recipe", "--quiet"],
                           env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if run.poll() is not None or any(scratch.glob("npuc-search-*/*")):
            break
        time.sleep(0.05)
    assert run.poll() is None, "the search ended before it could be interrupted"
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 130
    assert not list(scratch.iterdir()), "an interrupted search leaves files"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        b = Bench(args.npuc, pathlib.Path(tmp))
        check_refusals(b)
        check_drop(b)
        check_data(b)
        check_costs(b)
        check_caches(b, pathlib.Path(args.root))
        check_sensitivity(b)
        check_open_sizes(b)
        check_interrupt(b, pathlib.Path(args.root))


main()
