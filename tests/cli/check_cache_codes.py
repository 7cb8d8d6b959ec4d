#!/usr/bin/env python3
"""KV caches of codes: every form of cache, on targets with and without attention as one kernel, has the bits of the reference
interpreter, whatever is given and asked for; perplexities of the example model; recipes that are refused."""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

FLOAT = 24.942867 # perplexity of the first 8 windows, onnxruntime 1.32, fp32
RECIPES = {"kv8": "int8 token", "kv4": "int4 group=32 zero", "kvfp8": "float8e4m3fn token", "odd": "uint4 group=8", "k8v4": "int4 group=32 zero\nkeys = int8 token"}
FORMS = [("llama-optimum-op18", "kv8"), ("llama-hand-op23", "kv4"), ("llama-hand-static24", "kv8"), ("llama-genai-fp32", "kvfp8"),
         ("llama-genai-fp16", "odd"), ("llama-mobius-static", "k8v4"), ("gpt2-optimum", "k8v4"), ("llama-dynamo-op22-static-kv", "kv8"), ("llama-dynamo-op22-static-kv", "k8v4")]
TURNED = [("llama-optimum-op18", "ascend-910b1"), ("llama-hand-op23", "mlu370-x4"), ("llama-hand-static24", "ascend-910b1"),
          ("gpt2-optimum", "ascend-310p3"), ("llama-genai-fp32", "ascend-910b1"), ("gpt2-optimum", "mlu370-x4")]
TARGETS = ["ascend-910b1", "ascend-310p3", "mlu370-x4"]


class Bench:
    def __init__(self, npuc, opt, root, d):
        self.npuc, self.opt, self.root, self.d = npuc, opt, root, d
        self.bard = root / "examples" / "bard"
        for name, rows in RECIPES.items():
            (d / f"{name}.recipe").write_text(f"version = 1\nkv = {rows}\n")


def safetensors(tensors):
    head, data = {}, b""
    for name, x in tensors.items():
        head[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data


def results(folder):
    return {f.name: np.load(f) for f in folder.glob("*.npy")}


def check_form(b, case):
    """Runs of a plan and of its graph in the interpreter, with pasts given and presents asked for."""
    (fixture, recipe), target = case
    model = support.Fixture(b.root / "tests" / "models" / fixture)
    with tempfile.TemporaryDirectory(dir=b.d) as d:
        d = pathlib.Path(d)
        plan, written = d / "p.plan", b.d / f"{recipe}.recipe"
        if recipe == "turned":
            written = d / "turned.recipe"
            first = sorted((model.folder / "cases").iterdir())[0]
            made = [b.npuc, "quantize", model.model, "--scheme", "kv4", "--calib", first / "inputs", "-o", written, "--json"]
            summary = support.must(made)
            text, matrices = written.read_text(), written.with_name(written.name + ".safetensors")
            before = matrices.read_bytes()
            support.must(made)
            assert (written.read_text(), matrices.read_bytes()) == (text, before), "a second run turns keys otherwise"
            assert json.loads(summary)["turned"] == text.count("turn    = data") > 0, f"no keys are turned: {text}"
        support.must([b.npuc, "compile", model.model, "--target", target, "--recipe", written, "--kv-capacity", "64", "-o", plan, "--quiet"])
        for k in sorted((model.folder / "cases").iterdir()):
            if k.name != "decode" and not k.name.startswith(("decode_b2", "prefill_b1")):
                continue
            inputs = [w for f in sorted((k / "inputs").glob("*.npy")) for w in ("--input", f"{f.stem}={f}")]
            out, want = d / k.name, d / f"{k.name}.want"
            support.must([b.npuc, "run", plan, *inputs, "--output-dir", out, "--check-hazards"])
            want.mkdir()
            support.must([b.opt, "-p", "default", "--target", target, "--cache-capacity", "64", "--recipe", written, "--no-output",
                          "--eval", "--output-dir", want, *inputs, model.model])
            got, ref = results(out), results(want)
            assert ref, f"{k.name}: no results"
            for name, x in ref.items():
                assert got[name].tobytes() == x.tobytes(), f"{k.name}: {name} differs from the interpreter"
            keys = next(n for n in ref if "present" in n or "key" in n)
            exact = np.load(k / "outputs" / keys)
            rest = np.abs(got[keys] - exact).max() / np.abs(exact).max()
            assert 0 < rest < 0.25, f"{k.name}: {keys} changes by {rest:.1%}: not coded, or wrongly"


def check_perplexity(b, case):
    scheme, most = case
    recipe, plan = b.d / f"{scheme}.written", b.d / f"{scheme}.plan"
    support.must([b.npuc, "quantize", b.bard / "model.onnx", "--scheme", scheme, "-o", recipe, "--quiet"])
    support.must([b.npuc, "compile", b.bard / "model.onnx", "--recipe", recipe, "-o", plan, "--quiet"])
    run = [b.npuc, "perplexity", plan, "--tokens", b.bard / "eval" / "test.npy", "--window", "256", "--bos", "0", "--windows", "8"]
    rise = json.loads(support.must([*run, "--json"]))["perplexity"] / FLOAT - 1
    assert abs(rise) < most, f"{scheme}: perplexity changes by {rise:+.2%}"


def check_refused(b, _):
    r = b.d / "wrong.recipe"
    for text, code, words in [("kv = int8\n", 3, "token or group=N"), ("kv = int8 token by=mse\n", 3, "at run time"),
                              ("kv = float8e4m3fn token zero\n", 3, "without zero"), ("kv = int9 token\n", 3, "int9"),
                              ("kv = int8 token\nkv = int8 token\n", 3, "twice"),
                              ("[past_key_values.9.key]\nkv = int8 token\n", 3, "no KV cache of an input 'past_key_values.9.key'"),
                              ("[past_key_values.0.key]\nkv = int8\n", 3, "token or group=N"),
                              ("[past_key_values.0.key]\nkv = int8 token\nweight = int8 channel\n", 3, "is a cache"), ("keys = int8 token\n", 3, "kv = ROWS"),
                              ("[past_key_values.0.key]\nturn = data\n", 3, "needs a data file"),
                              ("data = none.safetensors\n[past_key_values.0.key]\nturn = data\n", 3, "turned but not coded"),
                              ("[past_key_values.0.key]\nturn = yes\n", 3, "expected data"),
                              ("data = none.safetensors\n[past_key_values.0.key]\nturn = data\nkeep = x\n", 3, "is a cache")]:
        r.write_text("version = 1\n" + text)
        done = support.call([b.npuc, "compile", b.bard / "model.onnx", "--recipe", r, "-o", b.d / "no.plan", "--quiet"])
        assert done.returncode == code and words in done.stderr, (text, done.returncode, done.stderr)
    def refused(words, **tensors):
        stored = {f"past_key_values.0.key.{part}": x for part, x in tensors.items()}
        b.d.joinpath("wrong.safetensors").write_bytes(safetensors(stored))
        r.write_text("version = 1\ndata = wrong.safetensors\nkv = int4 group=32 zero\n[past_key_values.0.key]\nturn = data\n")
        done = support.call([b.npuc, "compile", b.bard / "model.onnx", "--recipe", r, "-o", b.d / "no.plan", "--quiet"])
        assert done.returncode == 3 and words in done.stderr, (words, done.returncode, done.stderr)
    one = np.tile(np.eye(32, dtype=np.float32), (2, 1, 1))
    refused("expected finite matrices", turn=one)
    refused("expected finite matrices", turn=one, back=one[:1])
    refused("expected finite matrices", turn=one, back=np.full_like(one, np.inf))
    refused("made for another model", turn=one[:1, :8, :8], back=one[:1, :8, :8])
    done = support.call([b.npuc, "compile", b.bard / "model.onnx", "--recipe", b.d / "kv8.recipe", "--kv-capacity", "0", "-o",
                         b.d / "no.plan", "--quiet"])
    assert done.returncode == 3 and "no KV cache" in done.stderr, done.stderr
    done = support.call([b.npuc, "quantize", b.bard / "model.onnx", "--scheme", "w8a16+kv9", "-o", r])
    assert done.returncode == 2 and "kv9" in done.stderr, done.stderr


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", type=pathlib.Path, required=True)
    ap.add_argument("--opt", type=pathlib.Path, required=True)
    ap.add_argument("--root", type=pathlib.Path, required=True)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as d:
        b = Bench(args.npuc, args.opt, args.root, pathlib.Path(d))
        cases = [(f"{f[0]} {f[1]} {t}", (check_form, (f, t))) for f in FORMS for t in TARGETS]
        cases += [(f"{f} turned {t}", (check_form, ((f, "turned"), t))) for f, t in TURNED]
        cases += [(s, (check_perplexity, (s, most))) for s, most in [("kv8", 0.002), ("kv4", 0.015), ("k8v4", 0.005), ("w8a8-dynamic+kvfp8", 0.01)]]
        cases.append(("refusals", (check_refused, None)))
        return support.run_cases(cases, lambda c: c[0](b, c[1]))


if __name__ == "__main__":
    sys.exit(main())
