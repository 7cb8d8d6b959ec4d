#!/usr/bin/env python3
"""npuc quantize and compile --recipe on the example model: perplexities, the same bytes twice, edited and broken recipes."""
import argparse
import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

FLOAT = 24.942867 # perplexity of the first 8 windows, onnxruntime 1.32, fp32


class Bench:
    def __init__(self, npuc, root, d):
        self.npuc, self.d, self.root, self.bard = npuc, d, root, root / "examples" / "bard"
        self.model, self.text = self.bard / "model.onnx", self.bard / "eval" / "test.npy"

    def quantize(self, out, *options, model=None):
        support.must([self.npuc, "quantize", model or self.model, "-o", out, "--quiet", *options])
        return out.read_text()

    def perplexity(self, recipe):
        plan = self.d / "q.plan"
        support.must([self.npuc, "compile", self.model, "--recipe", recipe, "-o", plan, "--quiet"])
        run = [self.npuc, "perplexity", plan, "--tokens", self.text, "--window", "256", "--bos", "0", "--windows", "8"]
        return json.loads(support.must([*run, "--json"]))["perplexity"]

    def refused(self, command, code, words):
        done = support.call(command)
        assert done.returncode == code and words in done.stderr, (command[1:], done.returncode, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr


def check_schemes(b):
    data = b.d / "calib.npy"
    np.save(data, np.load(b.text)[-4096:].reshape(16, 256)) # not among the windows that are scored
    fixed = ["--scheme", "w8a8", "--calib", data, "--runs", "4"]
    # None: a row of bench/quantization.tsv holds what it costs.
    for most, options in [(None, ["--scheme", "w8a16"]), (None, ["--scheme", "w8a8-dynamic"]),
                          (0.02, ["--scheme", "w4a16-g32"]), (0.05, ["--scheme", "w4a16-g128"]),
                          (0.01, ["--scheme", "fp8-w8a16"]), (0.06, fixed)]:
        r = b.d / "r.recipe"
        first = b.quantize(r, *options)
        if most is not None:
            rise = b.perplexity(r) / FLOAT - 1
            assert abs(rise) < most, f"{options[1]}: perplexity changes by {rise:+.2%}"
        assert b.quantize(r, *options) == first, f"{options[1]}: a second run writes another recipe"
    assert "by=gptq" in b.quantize(b.d / "r.recipe", "--scheme", "w8a16", *fixed[2:], "--parts", "1"), "data is left unused"
    assert abs(b.perplexity(b.d / "r.recipe") / FLOAT - 1) < 0.001
    by = {how: b.quantize(b.d / "r.recipe", *fixed, "--activations", how) for how in ("minmax", "percentile", "mse", "ema")}
    assert len(set(by.values())) == 4, "calibrators agree"


def check_equalise(b):
    r, data = b.d / "e.recipe", b.d / "windows.npy"
    windows = np.load(b.text)[-4096:].reshape(16, 256)
    windows[:, 0] = 0 # the token that all texts begin with, whose elements are by far the largest
    np.save(data, windows)
    fixed = ["--scheme", "w8a8", "--calib", data, "--runs", "8"]
    text = b.quantize(r, *fixed)
    assert text.count("smooth  = data") > 20 and "by=output" in text, "inputs are not smoothed by themselves"
    rise = b.perplexity(r) / FLOAT - 1
    assert abs(rise) < 0.01, f"smoothed: perplexity changes by {rise:+.2%}"
    data_file = r.with_name(r.name + ".safetensors").read_bytes()
    assert b.quantize(r, *fixed) == text and r.with_name(r.name + ".safetensors").read_bytes() == data_file
    run = [b.npuc, "quantize", b.model, "-o", r, "--json", *fixed]
    got = json.loads(support.must([*run, "--input-error", "0.001", "--equalise", "none"]))["outliers"]
    worst = max(got, key=lambda o: o["error_before"])
    assert worst["product"] == "/model/layers.2/mlp/down_proj/MatMul", worst
    assert worst["ruling_channels"] <= 3 and worst["largest_by_usual"] > 10 and worst["error_before"] > 0.05, worst
    kept = json.loads(support.must([*run, "--keep-outliers", "2", "--equalise", "smooth,rotate,correct"]))["outliers"]
    text = r.read_text()
    assert sum(o["done"] == "kept in 16 bits" for o in kept) == 2 and text.count("why     = the input stays") >= 2, kept
    assert text.count("correct = data") == 36
    b.perplexity(r)
    b.refused([*run, "--equalise", "smoth"], 2, "--equalise")
    b.refused([*run, "--input-error", "-1"], 2, "--input-error")


def check_models(b):
    """What comes with the tokens is filled in."""
    models, r = b.root / "tests/models", b.d / "m.recipe"
    np.save(b.d / "few.npy", np.random.default_rng(5).integers(1, 60, (2, 12)))
    for name in ("bert-tiny-optimum", "llama-hand-static24", "llama-genai-fp16"): # the last leaves the size of its heads open
        support.must([b.npuc, "quantize", models / name / "model.onnx", "-o", r, "--quiet", "--scheme", "w8a8", "--calib", b.d / "few.npy"])
        assert "by=output" in r.read_text(), name


def check_left(b):
    """Products of one name are told apart; weights that get no codes, and groups that do not fit, are named with a reason."""
    twice, r = b.root / "tests/models/whisper-tiny-decoder-merged-optimum", b.d / "l.recipe"
    data = b.d / "cases"
    data.mkdir()
    for i, case in enumerate(sorted((twice / "cases").iterdir())):
        np.savez(data / f"{i}.npz", **{f.stem: np.load(f) for f in (case / "inputs").glob("*.npy")})
    text = b.quantize(r, "--scheme", "w8a8", "--calib", data, model=twice / "model.onnx")
    assert "[/proj_out/MatMul]" in text and "[/proj_out/MatMul#2]" in text, text
    support.must([b.npuc, "compile", twice / "model.onnx", "--recipe", r, "-o", b.d / "l.plan", "--quiet"])
    random = np.random.default_rng(5)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"], name="odd"), helper.make_node("MatMul", ["v", "a"], ["b"], name="left"),
             helper.make_node("MatMul", ["b", "m"], ["y"], name="several")]
    values = {"w": (48, 32), "v": (16, 24), "m": (5, 32, 8)}
    graph = helper.make_graph(nodes, "left", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [24, 48])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 16, 8])],
                              [onnx.numpy_helper.from_array(random.standard_normal(s).astype(np.float32), k) for k, s in values.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), b.d / "left.onnx")
    text = b.quantize(r, "--scheme", "mxfp8", model=b.d / "left.onnx")
    for name, line in [("odd", "why     = groups do not divide"), ("left", "keep    = its weight is the left operand"),
                       ("several", "keep    = its weight is several matrices")]:
        part = text.partition(f"[{name}]")[2].partition("[")[0]
        assert line in part, (name, text)
    support.must([b.npuc, "compile", b.d / "left.onnx", "--recipe", r, "-o", b.d / "l.plan", "--quiet"])


def check_outcome(b):
    """Errors of many inputs add up: of an image classifier they are brought down until the outputs are as exact as they should be."""
    model, data, r = b.root / "tests/models/vit-tiny-torchscript-op14/model.onnx", b.d / "images", b.d / "vit.recipe"
    data.mkdir()
    random = np.random.default_rng(3)
    for i in range(8):
        np.savez(data / f"{i}.npz", x=random.standard_normal((1, 3, 64, 64)).astype(np.float32))
    run = [b.npuc, "quantize", model, "-o", r, "--quiet", "--scheme", "w8a8", "--calib", data]
    done = []
    for options in [[], [], ["--input-error", "0.01"]]:
        support.must([*run, *options])
        text = r.read_text()
        done.append((text, text.count("why     = a scale per token") + text.count("why     = the input stays")))
    assert done[0] == done[1] and done[0][1] > 3 and done[2][1] == 0, [n for _, n in done]


def check_recipes(b):
    r = b.d / "r.recipe"
    text = b.quantize(r, "--scheme", "w8a16", "--keep", "*lm_head*", "--keep", "*/layers.[01]/*")
    assert text.count("keep    = asked for by --keep") == 15 and text.count("weight  =") == 21, text
    b.perplexity(r)
    name = re.search(r"^\[(.*)\]$", text, re.M).group(1)
    for wrong, words in [
        ("", "version"),
        ("version = 2\n", "version 1"),
        (f"version = 1\n[{name}]\nweight = int9 channel\n", ":3"),
        (f"version = 1\n[{name}]\nweight = int8 rows\n", "'rows'"),
        (f"version = 1\n[{name}]\nweight = int8 token\n", "no scale per token"),
        (f"version = 1\n[{name}]\nweight = int8 by=magic\n", "algorithm"),
        (f"version = 1\n[{name}]\nweight = int4 group=0\n", "group"),
        (f"version = 1\n[{name}]\nweight = int8\ninput = int8\n", "scale=S"),
        (f"version = 1\n[{name}]\nweight = int8\ninput = int8 scale=nan\n", "positive"),
        (f"version = 1\n[{name}]\nweight = int8\ninput = uint8 scale=1 zero=-1\n", "zero"),
        (f"version = 1\n[{name}]\nweight = int8\nkeep = both\n", "both kept and quantised"),
        (f"version = 1\n[{name}]\ninput = int8 token\n", "no weight"),
        (f"version = 1\n[{name}]\nweight = int8\n[{name}]\nweight = int8\n", "twice"),
        (f"version = 1\n[{name}]\nweight = int8 round=up\n", "even or away"),
        (f"version = 1\n[{name}]\nweight = int8 divisor=126\n", "most (127)"),
        (f"version = 1\n[{name}]\nweight = int8 zero divisor=full\n", "no divisor"),
        (f"version = 1\n[{name}]\nweight = uint8 zero narrow\n", "signed codes"),
        (f"version = 1\n[{name}]\nweight = float8e4m3fn round=away\n", "float codes"),
        (f"version = 1\n[{name}]\nweight = int8 dynamic\n", "run time"),
        (f"version = 1\n[{name}]\nweight = int8\ninput = int8 dynamic\n", "uint8 dynamic zero"),
        (f"version = 1\n[{name}]\nweight = int8\ninput = int8 token divisor=side\n", "divisor=side"),
        ("version = 1\n[/nobody]\nweight = int8\n", "no product"),
        ("version = 1\nweight = int8\n", "found 'weight'"),
        ("version = 1\nhello\n", "key = value"),
    ]:
        r.write_text(wrong)
        b.refused([b.npuc, "compile", b.model, "--recipe", r, "-o", b.d / "q.plan", "--quiet"], 3, words)


def check_variants(b):
    """Each rule is in the recipe, once for weights and inputs, and changes what the model computes but little."""
    words = {"onnx": "", "ort": " narrow", "tensorrt": " narrow", "amct": " divisor=side round=away", "full": " divisor=full"}
    r = b.d / "v.recipe"
    for name, extra in words.items():
        text = b.quantize(r, "--scheme", "w8a8-dynamic", "--variant", name)
        assert f"weight  = int8 channel{extra} by=minmax\n" in text, text[:400]
        assert f"input   = int8 token{extra.replace(' divisor=side', '')}\n" in text, text[:400]
    assert abs(b.perplexity(r) / FLOAT - 1) < 0.005
    b.quantize(r, "--scheme", "w8a8-dynamic", "--variant", "amct")
    assert abs(b.perplexity(r) / FLOAT - 1) < 0.005
    b.refused([b.npuc, "quantize", b.model, "--scheme", "w8a16", "-o", r, "--variant", "cnnl"], 2, "cnnl")


def check_forms(b):
    """--export-qdq, --from: wrong use."""
    out, r = b.d / "out.onnx", b.d / "f.recipe"
    start = [b.npuc, "quantize"]
    b.refused([*start, b.model, "--recipe", b.d / "none", "--export-qdq", out], 6, "none")
    b.refused([*start, b.model, "--recipe", r], 2, "--export-qdq")
    b.refused([*start, "--from", b.model, "-o", r], 4, "no product whose constant weight is in codes")
    b.refused([*start, "--from", b.model], 2, "-o RECIPE")
    b.refused([*start, "--from", b.model, "-o", r, "--scheme", "w8a16"], 2, "--scheme")
    b.refused([*start, "--from", b.d / "none.onnx", "-o", r], 6, "none.onnx")
    b.quantize(r, "--scheme", "w8a16")
    b.refused([*start, b.model, "--recipe", r, "--export-qdq", b.d / "nowhere" / "out.onnx"], 6, "nowhere")
    r.write_text("version = 1\n[/nobody]\nweight = int8\n")
    b.refused([*start, b.model, "--recipe", r, "--export-qdq", out], 3, "no product")
    assert not out.exists()


def check_arrays(b, r):
    """Inputs as arrays: wrong names, types, shapes, numbers; none at all; files that are none."""
    model = b.root / "tests/models/resnet8-float-op13/model.onnx"
    good = np.ones((1, 3, 32, 32), np.float32)
    bad, infinite = good.copy(), good.copy()
    bad[0, 1, 2, 3], infinite[0, 0, 0, 5] = np.nan, np.inf
    for name, arrays in [("names", {"image": good}), ("none", {}), ("nan", {"x": bad}), ("inf", {"x": infinite}),
                         ("type", {"x": good.astype(np.float64)}), ("size", {"x": good[:, :, :16]}), ("rank", {"x": good[0]}),
                         ("empty", {"x": good[:0]}), ("huge", {"x": good * 3e38})]:
        np.savez(b.d / f"{name}.npz", **arrays)
    np.savez(b.d / "whole.npz", x=good)
    (b.d / "torn.npz").write_bytes((b.d / "whole.npz").read_bytes()[:300])
    for folder in ("mixed", "nothing", "array"):
        (b.d / folder).mkdir()
    np.savez(b.d / "mixed/1.npz", x=good)
    np.savez(b.d / "mixed/2.npz", x=good[..., :8])
    np.save(b.d / "array/y.npy", good)
    for data, words in [("names.npz", "'x'"), ("none.npz", "'x'"), ("nan.npz", "element 1091 is no finite number"),
                        ("inf.npz", "element 5 is no finite number"), ("type.npz", "found f64"), ("size.npz", "found f32[1,3,16,32]"),
                        ("rank.npz", "found f32[3,32,32]"), ("empty.npz", "all inputs are empty"), ("huge.npz", "infinities or NaN"),
                        ("torn.npz", "torn.npz"), ("mixed", "2.npz: "), ("nothing", "neither an .npz file nor 'x.npy'"),
                        ("array", "neither an .npz file nor 'x.npy'")]:
        b.refused([b.npuc, "quantize", model, "-o", r, "--quiet", "--scheme", "w8a8", "--calib", b.d / data], 3, words)


def check_data(b):
    r = b.d / "bad.recipe"
    start = [b.npuc, "quantize", b.model, "-o", r, "--quiet"]
    np.save(b.d / "floats.npy", np.zeros((2, 8), np.float32))
    np.save(b.d / "none.npy", np.zeros((0, 8), np.int64))
    np.save(b.d / "foreign.npy", np.full((1, 8), 99999, np.int64))
    np.savez(b.d / "names.npz", wrong=np.zeros(1, np.int64))
    for data, words in [("floats.npy", "token ids"), ("none.npy", "no token"), ("foreign.npy", "99999"),
                        ("names.npz", "input_ids"), ("nowhere", "calibration data")]:
        b.refused([*start, "--scheme", "w8a8", "--calib", b.d / data], 3, words)
    check_arrays(b, r)
    b.refused([*start, "--scheme", "w8a8"], 2, "--calib")
    b.refused([*start, "--scheme", "w1a1"], 2, "w1a1")
    b.refused([*start, "--scheme", "w4a16-g0"], 2, "w4a16-g0")
    b.refused([*start, "--scheme", "w8a16", "--weights", "magic"], 2, "magic")
    assert not r.exists(), "a refused run leaves a recipe"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True, type=pathlib.Path)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        b = Bench(args.npuc, args.root, pathlib.Path(tmp))
        check_recipes(b)
        check_data(b)
        check_variants(b)
        check_forms(b)
        check_schemes(b)
        check_equalise(b)
        check_models(b)
        check_left(b)
        check_outcome(b)


main()
