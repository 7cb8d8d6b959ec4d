#!/usr/bin/env python3
"""npuc perplexity: the figure onnxruntime gives for the same windows, in one call per window and token by token."""
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
