#!/usr/bin/env python3
"""npuc compare: every figure of a small model against numpy, the page and tables it writes, and what it refuses."""
import argparse
import csv
import json
import math
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

SCALE = 0.02 # of the second product's input: the largest ones are cut off


def model(path, w1, w2, logits=False):
    last = "logits" if logits else "y"
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"), helper.make_node("Relu", ["h"], ["r"], name="relu"),
             helper.make_node("MatMul", ["r", "w2"], [last], name="second")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", w1.shape[0]])],
                              [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", w2.shape[1]])],
                              [numpy_helper.from_array(w1, "w1"), numpy_helper.from_array(w2, "w2")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), path)


def coded(x, scale):
    return (np.clip(np.rint(x / scale), -128, 127) * scale).astype(np.float32)


def weight(w):
    return coded(w, (np.abs(w).max(axis=0) / 127).astype(np.float32))


def by_token(x):
    return coded(x, (np.abs(x).max(axis=-1, keepdims=True) / 127).astype(np.float32))


class Reference:
    """The model with any part quantised: `first` and `second` are functions of input and weight."""

    def __init__(self, x, w1, w2):
        self.x, self.w1, self.w2 = x, w1, w2
        self.fixed = lambda v: coded(v, np.float32(SCALE))

    def run(self, first="", second=""):
        h = self.product(self.x, self.w1, first, by_token)
        y = self.product(np.maximum(h, 0), self.w2, second, self.fixed)
        return h, y

    def product(self, x, w, parts, code):
        return (code(x) if "i" in parts else x).astype(np.float64) @ (weight(w) if "w" in parts else w)


def close(got, want, what):
    assert math.isclose(got, want, rel_tol=2e-3, abs_tol=1e-7), f"{what}: {got}, numpy {want}"


def check_error(got, x, y, what):
    e = y - x
    close(got["sqnr_db"], 10 * math.log10((x * x).sum() / (e * e).sum()), what)
    close(1 - got["cosine"], 1 - (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()), what + " cosine")
    close(got["mse"], (e * e).mean(), what + " mean square")
    close(got["max_error"], np.abs(e).max(), what + " largest")


def compare(npuc, *options):
    return json.loads(support.must([npuc, "compare", *options, "--json", "--quiet"]))


def write_case(d):
    rng = np.random.default_rng(7)
    w1, w2 = (rng.standard_normal(s).astype(np.float32) for s in [(24, 40), (40, 16)])
    model(d / "m.onnx", w1, w2)
    model(d / "words.onnx", w1, w2, logits=True)
    (d / "data").mkdir()
    runs = [rng.standard_normal((n, 24)).astype(np.float32) * np.float32(0.2) for n in (9, 5)]
    for i, x in enumerate(runs):
        np.savez(d / "data" / f"{i}.npz", x=x)
    (d / "r.recipe").write_text("version = 1\nscheme = mixed\n[first]\nweight = int8 channel\ninput = int8 token\n"
                                f"[second]\nweight = int8 channel\ninput = int8 scale={SCALE}\n")
    return Reference(np.concatenate(runs), w1, w2)


def check_figures(npuc, d):
    ref = write_case(d)
    h, y = ref.run()
    j = compare(npuc, d / "m.onnx", "--recipe", d / "r.recipe", "--calib", d / "data", "--each", "2")
    c = j["comparisons"][0]
    first, second = c["products"]
    assert (first["name"], second["name"], j["runs"]) == ("first", "second", 2), j
    for key, parts in [("local", "wi"), ("local_weights", "w"), ("local_inputs", "i")]:
        check_error(first[key], h, ref.run(parts)[0], "first " + key)
        check_error(second[key], y, ref.run("", parts)[1], "second " + key)
    all_h, all_y = ref.run("wi", "wi")
    check_error(first["cumulative"], h, all_h, "first cumulative")
    check_error(second["cumulative"], y, all_y, "second cumulative")
    check_error(c["outputs"][0], y, all_y, "output")
    noise = lambda v: ((v - y) ** 2).sum() / (y * y).sum()
    for part, name in [("wi", "all"), ("w", "weights"), ("i", "inputs")]:
        close(c["effects"][name]["noise"], noise(ref.run(part, part)[1]), name)
    for product, alone, without in [(first, ("wi", ""), ("", "wi")), (second, ("", "wi"), ("wi", ""))]:
        close(product["isolated"]["noise"], noise(ref.run(*alone)[1]), product["name"] + " isolated")
        close(product["inverse"]["noise"], noise(ref.run(*without)[1]), product["name"] + " inverse")
    close(second["clipped"], (np.maximum(h, 0) > 127.5 * SCALE).mean(), "clipped")
    assert second["clipped"] > 0.001 and "clipped" not in first, "no element of the case is cut off"
    seen = j["inputs"][0]
    close(seen["high"], ref.x.max(), "largest input")
    close(seen["rms"], math.sqrt((ref.x.astype(np.float64) ** 2).mean()), "root mean square")
    assert sum(seen["histogram"]["counts"]) == ref.x.size, "a histogram lost elements"
    close(seen["channels"]["top"][0]["most"], np.abs(ref.x).max(), "largest channel")
    assert seen["channels"]["top"][0]["channel"] == np.abs(ref.x).max(axis=0).argmax()


def log_softmax(x):
    return x - np.log(np.exp(x - x.max(axis=-1, keepdims=True)).sum(axis=-1, keepdims=True)) - x.max(axis=-1, keepdims=True)


def check_words(npuc, d):
    ref = write_case(d / "words")
    p, q = log_softmax(ref.run()[1]), log_softmax(ref.run("wi", "wi")[1])
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    got = compare(npuc, d / "words" / "words.onnx", "--recipe", d / "words" / "r.recipe", "--calib", d / "words" / "data")
    e = got["comparisons"][0]["effects"]["all"]
    close(e["kl"]["mean"], kl.mean(), "KL")
    close(e["kl"]["max"], kl.max(), "KL max")
    close(e["kl"]["p99"], sorted(kl)[math.ceil(0.99 * kl.size) - 1], "KL 99 %")
    close(e["top1_agreement"], (p.argmax(-1) == q.argmax(-1)).mean(), "agreement")
    assert "perplexity" not in e, "no tokens were given"


def check_smooth(npuc, d):
    """Inputs are divided before they are coded, weights multiplied, also where one of them alone is coded."""
    ref = write_case(d / "smooth")
    s = np.linspace(0.3, 3, 24, dtype=np.float32)
    header = json.dumps({"first.smooth": {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}}).encode()
    recipe = d / "smooth" / "s.recipe"
    (d / "smooth" / "s.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + s.tobytes())
    recipe.write_text("version = 1\ndata = s.safetensors\n[first]\nweight = int8 channel\ninput = int8 token\nsmooth = data\n")
    j = compare(npuc, d / "smooth" / "m.onnx", "--recipe", recipe, "--calib", d / "smooth" / "data", "--each", "2")
    first = j["comparisons"][0]["products"][0]
    x, w, h = ref.x / s, ref.w1 * s[:, None], ref.run()[0]
    for key, parts in [("local", "wi"), ("local_weights", "w"), ("local_inputs", "i"), ("cumulative", "wi")]:
        check_error(first[key], h, ref.product(x, w, parts, by_token), "smoothed " + key)
    close(first["isolated"]["noise"], j["comparisons"][0]["effects"]["all"]["noise"], "the only product alone")


def check_files(npuc, d):
    page, table = d / "page.html", d / "table.csv"
    options = [d / "m.onnx", "--recipe", d / "r.recipe", "--calib", d / "data"]
    text = support.must([npuc, "compare", *options, "--html", page, "--csv", table, "--quiet"])
    assert re.search(r"^first +i8 channel +i8 token ", text, re.M) and "weights" in text, text
    rows = list(csv.DictReader(table.open()))
    assert [r["product"] for r in rows] == ["first", "second"] and float(rows[1]["clipped"]) > 0, rows
    one = compare(npuc, *options)
    for i in (1, 2):
        (d / f"{i}.json").write_text(json.dumps(one))
    support.must([npuc, "compare", "--pareto", d / "1.json", d / "2.json", "--html", d / "both.html"])
    for path, n in [(page, 1), (d / "both.html", 2)]:
        html = path.read_text(encoding="utf-8")
        data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))
        assert len(data["analyses"]) == n and len(data["analyses"][0]["comparisons"][0]["products"]) == 2, data
        outside = re.findall(r'(?:src|href)\s*=|https?://(?!www\.w3\.org/2000/svg)|@import|fetch\(', html)
        assert not outside, f"{path.name} reaches out: {outside}"
    assert json.dumps(compare(npuc, *options)) == json.dumps(one), "a second run says something else"
    same = compare(npuc, d / "m.onnx", d / "m.onnx", "--calib", d / "data")["comparisons"][0]
    assert same["products"][1]["cumulative"]["sqnr_db"] is None and same["effects"]["all"]["noise"] == 0, same


def check_plans(npuc, d):
    x = np.random.default_rng(3).standard_normal((4, 24)).astype(np.float32)
    np.save(d / "x.npy", x)
    support.must([npuc, "compile", d / "m.onnx", "-o", d / "m.plan", "--quiet"])
    support.must([npuc, "compile", d / "m.onnx", "--recipe", d / "r.recipe", "-o", d / "q.plan", "--quiet"])
    got = {}
    for name in "mq":
        support.must([npuc, "run", d / f"{name}.plan", "--input", f"x={d / 'x.npy'}", "--output-dir", d / name])
        got[name] = np.load(d / name / json.loads((d / name / "outputs.json").read_text())["y"]).astype(np.float64)
    run = [npuc, "compare", d / "m.plan", d / "q.plan", "--input", f"x={d / 'x.npy'}"]
    check_error(json.loads(support.must([*run, "--json"]))["outputs"][0], got["m"], got["q"], "two plans")
    same = support.must([npuc, "compare", d / "m.plan", d / "m.plan", *run[4:]])
    assert re.search(r"^y +equal ", same, re.M), same


def check_refusals(npuc, d):
    (d / "unknown.recipe").write_text("version = 1\n[nobody]\nweight = int8 channel\n")
    (d / "broken.json").write_text("{}")
    start = [npuc, "compare", d / "m.onnx"]
    for options, code, words in [
        (["--recipe", d / "r.recipe"], 2, "--calib"),
        (["--calib", d / "data"], 2, "--recipe"),
        (["--recipe", d / "unknown.recipe", "--calib", d / "data"], 3, "nobody"),
        (["--recipe", d / "r.recipe", "--calib", d / "nowhere"], 3, "calibration data"),
        (["--recipe", d / "r.recipe", "--calib", d / "data", "--each", "-1"], 2, "--each"),
        ([d / "words.onnx", "--calib", d / "nowhere.npz"], 6, "nowhere.npz"),
    ]:
        done = support.call([*start, *options])
        assert done.returncode == code and words in done.stderr, (options, done.returncode, done.stderr)
        assert len(done.stderr.splitlines()) == 1 and not done.stdout, done.stderr
    done = support.call([npuc, "compare", "--pareto", d / "broken.json", "--html", d / "x.html"])
    assert done.returncode == 3 and "broken.json" in done.stderr and not (d / "x.html").exists(), done.stderr


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        d = pathlib.Path(tmp)
        check_figures(args.npuc, d)
        for folder in ("words", "smooth"):
            (d / folder).mkdir()
        check_smooth(args.npuc, d)
        check_words(args.npuc, d)
        check_files(args.npuc, d)
        check_plans(args.npuc, d)
        check_refusals(args.npuc, d)


main()
