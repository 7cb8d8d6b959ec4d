#!/usr/bin/env python3
"""npuc estimate --sweep: every point as npuc estimate times it alone, continued prefills near the timed ones, files."""
import argparse
import csv
import json
import pathlib
import sys
import tempfile
import xml.etree.ElementTree as ET

import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support


def other_model(path):
    """A model with two open dimensions that is no language model."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value("x", TensorProto.FLOAT, ["rows", "columns"])],
                              [value("y", TensorProto.FLOAT, ["rows", "columns"])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]), path)


def check_stages(npuc, model):
    """Two stages: a token passes both, so a step of one sequence is no shorter than on one device; two sequences take turns and a step
    is shorter than twice that; a device holds less than all weights. Divided layers and stages together are so many devices."""
    def estimate(*options):
        return json.loads(support.must([npuc, "estimate", model, "--context", "20", *options, "--json"]))["ascend-910b1"]

    one, two = estimate()["decode"]["us"], estimate("--pp", "2")["spread"]
    assert (two["devices"], two["pipeline_parallel"], two["modelled"]) == (2, 2, True), two
    step, both = two["decode_us_per_step"], estimate("--pp", "2", "--batch", "2")["spread"]["decode_us_per_step"]
    assert step >= one and step <= both < 2 * step, (one, step, both)
    assert two["memory_bytes_per_device"] < estimate("--devices", "1", "--pp", "1", "--tp", "1")["decode"]["peak_bytes"]["GM"]
    assert estimate("--devices", "4", "--pp", "2")["spread"]["tensor_parallel"] == 2
    wrong = support.call([npuc, "estimate", model, "--devices", "3", "--pp", "2", "--tp", "2"])
    assert wrong.returncode == 2 and "are 4" in support.last_line(wrong.stderr), wrong.stderr


def check_experts(npuc, model, bard):
    """Groups with experts of their own: sequences are dealt out to them, a device holds fewer matrices, rows go over links and back. A
    model without experts says so, as do fewer sequences than groups."""
    def estimate(model, *options):
        return json.loads(support.must([npuc, "estimate", model, "--context", "20", *options, "--json"]))["ascend-910b1"]

    one, two = estimate(model, "--batch", "2"), estimate(model, "--batch", "4", "--ep", "2")
    spread = two["spread"]
    assert (spread["devices"], spread["tensor_parallel"], spread["expert_parallel"]) == (2, 1, 2), spread
    exchanges = [s for s in two["decode"]["steps"] if s["op"] == "AllToAll"]
    assert exchanges and all(s["bound_by"] == "link" for s in exchanges) and spread["link_us"] > 0, two["decode"]["steps"]
    assert two["decode"]["weights_bytes"] < one["decode"]["weights_bytes"] and two["decode"]["cache_bytes"] == one["decode"]["cache_bytes"]
    assert not any(s["op"] == "AllToAll" for s in one["decode"]["steps"])
    both = estimate(model, "--batch", "4", "--ep", "2", "--tp", "2")
    assert both["spread"]["devices"] == 4 and both["decode"]["weights_bytes"] < two["decode"]["weights_bytes"], both["spread"]
    assert any("share nothing" in n for n in estimate(bard, "--ep", "2", "--batch", "2")["spread"]["notes"])
    assert any("fewer sequences" in n for n in estimate(model, "--ep", "2")["notes"])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    bard = pathlib.Path(args.root) / "examples" / "bard" / "model.onnx"
    with tempfile.TemporaryDirectory() as tmp:
        d = pathlib.Path(tmp)

        def sweep(*options, model=bard):
            return json.loads(support.must([args.npuc, "estimate", model, *options, "--json"]))["points"]

        files = {k: d / f"two.{k}" for k in ("csv", "html", "svg")}
        two = sweep("--devices", "2", "--sweep", "batch=1", "--sweep", "seq=20", *(x for k, f in files.items() for x in (f"--{k}", f)))
        assert two[0]["spread"]["modelled"] and two[0]["spread"]["tensor_parallel"] == 2, two
        assert all("modelled" in f.read_text() for f in files.values())

        check_stages(args.npuc, bard)
        check_experts(args.npuc, pathlib.Path(args.root) / "tests" / "models" / "mixtral-mobius" / "model.onnx", bard)
        points = sweep("--sweep", "batch=3,1", "--sweep", "context=48,20", "--compare", "mlu370-x4", "--csv", d / "s.csv", "--html",
                       d / "s.html", "--svg", d / "s.svg")
        assert [(p["target"], p["batch"], p["seq"]) for p in points] == [
            (t, b, s) for t in ("ascend-910b1", "mlu370-x4") for b in (3, 1) for s in (48, 20)]
        for p in points[1:6:4]:
            alone = json.loads(support.must([args.npuc, "estimate", bard, "--target", p["target"], "--batch", str(p["batch"]),
                                             "--context", str(p["seq"]), "--json"]))[p["target"]]
            assert p["time_to_first_token_us"] == alone["prefill"]["us"], p
            assert p["decode_us_per_step"] == alone["decode"]["us"], p
        assert all(p["fits"] and p["missing_bytes"] == 0 and not p["continued"] for p in points)
        a, b = points[0], points[1] # cache rows: one behind the prompt
        assert a["cache_bytes"] * 21 == b["cache_bytes"] * 49, (a, b)
        rows = list(csv.DictReader((d / "s.csv").open(encoding="utf-8")))
        assert [float(r["decode_us_per_step"]) for r in rows] == [p["decode_us_per_step"] for p in points]
        svg = ET.parse(d / "s.svg").getroot()
        assert len(svg.findall(".//{*}circle")) == 2 * len(points), "a mark per point and panel"
        page = (d / "s.html").read_text(encoding="utf-8")
        assert page.count("<tr><td>") == len(points) and "http" not in page.replace("http://www.w3.org/2000/svg", "")

        near, exact = (sweep("--sweep", "batch=32,48", "--sweep", "seq=96", *more) for more in ([], ["--exact"]))
        for p, q in zip(near, exact):
            assert p["continued"] and not q["continued"] and p["activation_bytes"] == q["activation_bytes"], (p, q)
            assert abs(p["time_to_first_token_us"] / q["time_to_first_token_us"] - 1) < 0.03, (p, q)

        small = sweep("--sweep", "batch=1,64", "--set", "gm.size=4MiB")
        assert [p["fits"] for p in small] == [False, False] and small[1]["missing_bytes"] > small[0]["missing_bytes"] > 0
        assert abs(small[0]["memory_bytes"] - small[0]["missing_bytes"] - 4 * 2**20) < 1

        other_model(d / "relu.onnx")
        grid = sweep("--sweep", "rows=8,4096", "--sweep", "columns=64", model=d / "relu.onnx")
        assert [(p["rows"], p["columns"]) for p in grid] == [(8, 64), (4096, 64)] and grid[0]["call_us"] < grid[1]["call_us"]
        for options, words in (("batch", "NAME=SIZE"), ("batch=0", "batch=0"), ("batch=1,x", "batch=1,x"), ("rows=1", "batch and seq")):
            done = support.call([args.npuc, "estimate", bard, "--sweep", options])
            assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, (options, done)


main()
