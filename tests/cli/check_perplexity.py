#!/usr/bin/env python3
"""npuc perplexity: the figure onnxruntime gives for the same windows, in one call per window and token by token, and
what a comparison of two plans says against numpy on their logits."""
import argparse
import json
import math
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

# Of the optimum export of this model and the first 8 windows of the test text, computed with onnxruntime 1.32, fp32.
EXPECTED, WITHIN = 24.942867, 2e-6


def perplexity(npuc, plan, *options):
    return json.loads(support.must([npuc, "perplexity", plan, "--window", "256", "--bos", "0", "--json", *options]))


def last_logits_only(model, path):
    """The model with the logits of the last position alone, as some exporters write it."""
    m = onnx.load(model)
    out = next(o for o in m.graph.output if o.name == "logits")
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "last_position"))
    m.graph.node.append(helper.make_node("Gather", ["logits", "last_position"], ["last_logits"], axis=1))
    vocab = out.type.tensor_type.shape.dim[2].dim_value
    m.graph.output.remove(out)
    m.graph.output.append(helper.make_tensor_value_info("last_logits", TensorProto.FLOAT, [None, 1, vocab]))
    onnx.save(m, path)


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def logits(npuc, plan, ids, d):
    """Of one window that begins with token 0, [len(ids), vocabulary]."""
    given = {"input_ids": [0, *ids[:-1]], "attention_mask": [1] * len(ids), "position_ids": range(len(ids))}
    words = []
    for name, values in given.items():
        np.save(d / f"{name}.npy", np.array([values], np.int64))
        words += ["--input", f"{name}={d / name}.npy"]
    support.must([npuc, "run", plan, *words, "--output-dir", d / "out"])
    index = json.loads((d / "out" / "outputs.json").read_text())
    return np.load(d / "out" / index["logits"])[0]


def check_reference(npuc, bard, text, d):
    """Mean differences, their error and divergences of a quantised plan, recomputed from both plans' logits."""
    support.must([npuc, "quantize", bard / "model.onnx", "--scheme", "w4a16-g128", "-o", d / "w4.recipe", "--quiet"])
    support.must([npuc, "compile", bard / "model.onnx", "--recipe", d / "w4.recipe", "-o", d / "w4.plan", "--quiet"])
    short = ["--tokens", text, "--window", "24", "--windows", "3"]
    r = json.loads(support.must([npuc, "perplexity", d / "w4.plan", *short, "--bos", "0", "--json", "--reference", d / "bard.plan"]))
    nats, kl, agree = [], [], []
    for window in np.load(text)[:72].reshape(3, 24):
        p, q = (log_softmax(logits(npuc, d / plan, window.tolist(), d)) for plan in ("bard.plan", "w4.plan"))
        nats.append([-x[np.arange(24), window].mean() for x in (p, q)])
        kl += (np.exp(p) * (p - q)).sum(axis=-1).tolist()
        agree += (p.argmax(axis=-1) == q.argmax(axis=-1)).tolist()
    nats = np.array(nats)
    change = nats[:, 1] - nats[:, 0]
    ratio = math.exp(change.mean())
    for got, want in [(r["reference"]["perplexity"], math.exp(nats[:, 0].mean())), (r["perplexity"], math.exp(nats[:, 1].mean())),
                      (r["change"], ratio - 1), (r["change_standard_error"], ratio * change.std(ddof=1) / math.sqrt(3)),
                      (r["kl"]["mean"], np.mean(kl)), (r["kl"]["p99"], sorted(kl)[math.ceil(0.99 * 72) - 1]),
                      (r["kl"]["max"], max(kl)), (r["top1_agreement"], np.mean(agree))]:
        assert math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-12), (got, want, r)
    done = support.call([npuc, "perplexity", d / "w4.plan", *short, "--reference", d / "nowhere.plan"])
    assert done.returncode == 6 and "nowhere.plan" in done.stderr, (done.returncode, done.stderr)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--root", required=True)
    args = ap.parse_args()
    bard = pathlib.Path(args.root) / "examples" / "bard"
    text = bard / "eval" / "test.npy"
    with tempfile.TemporaryDirectory() as tmp:
        d = pathlib.Path(tmp)
        plan = d / "bard.plan"
        support.must([args.npuc, "compile", bard / "model.onnx", "-o", plan, "--quiet"])
        r = perplexity(args.npuc, plan, "--tokens", text, "--windows", "8")
        assert abs(r["perplexity"] / EXPECTED - 1) < WITHIN, f"perplexity {r['perplexity']}, expected {EXPECTED}"
        assert r["targets"] == 2048 and r["windows"] == 8, r
        assert math.isclose(math.exp(r["nats_per_target"]), r["perplexity"], rel_tol=1e-12), r

        short = ["--window", "16", "--windows", "2", "--tokens", text]
        whole = perplexity(args.npuc, plan, *short)
        last_logits_only(bard / "model.onnx", d / "last.onnx")
        support.must([args.npuc, "compile", d / "last.onnx", "-o", d / "last.plan", "--quiet"])
        by_token = perplexity(args.npuc, d / "last.plan", *short)
        assert math.isclose(whole["perplexity"], by_token["perplexity"], rel_tol=1e-5), (whole, by_token)

        check_reference(args.npuc, bard, text, d)
        np.save(d / "foreign.npy", np.full(16, 70000, np.int32))
        np.save(d / "floats.npy", np.zeros(16, np.float32))
        for tokens, window, code, words in [
            (d / "foreign.npy", "16", 3, "another tokenizer"),
            (d / "floats.npy", "16", 3, "integers"),
            (text, "1000000", 3, "fill no window"),
            (text, "0", 2, "--window"),
        ]:
            done = support.call([args.npuc, "perplexity", plan, "--tokens", tokens, "--window", window, "--bos", "0"])
            assert done.returncode == code and words in done.stderr, (tokens, window, done.returncode, done.stderr)
            assert len(done.stderr.splitlines()) == 1, done.stderr


main()
