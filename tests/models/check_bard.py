#!/usr/bin/env python3
"""The example model against its reference (eval/reference.json, made with onnxruntime): perplexity, greedy text, logits, cache.

    check_bard.py --npuc NPUC FOLDER
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import call, must, run_cases

CONTEXT, BATCH, BOS = 256, 13, 0 # 181 windows are 13 full batches of 13 and one of 12
EXPORTS = {"optimum": "model.onnx", "opset24": "opset24/model.onnx"}


class Bard:
    """One export compiled once, run with arrays in and arrays out."""

    def __init__(self, npuc, folder, export, precision, scratch):
        self.npuc, self.folder, self.export = npuc, folder, export
        self.scratch = scratch / f"{export}-{precision}"
        self.scratch.mkdir()
        self.plan = self.scratch / "bard.plan"
        must([npuc, "compile", folder / EXPORTS[export], "--target", "ascend-910b1", "--precision", precision, "--quiet",
              "-o", self.plan])
        self.reference = json.loads((folder / "eval/reference.json").read_text(encoding="utf-8"))

    def array(self, name):
        return np.load(self.folder / "eval" / f"{name}.npy")

    def cache_name(self, name):
        """The input that an output's cache rows go back into."""
        for out, back in (("present_key.", "past_key."), ("present_value.", "past_value."), ("present.", "past_key_values.")):
            if name.startswith(out):
                return back + name[len(out):]
        return None

    def run(self, label, ids, caches=None, first=0):
        """Logits and caches of tokens ids [batch, rows] at positions first..; caches: as returned, absent: empty."""
        folder = self.scratch / label
        folder.mkdir(exist_ok=True)
        batch, rows = ids.shape
        feeds = {"input_ids": ids, "position_ids": np.broadcast_to(np.arange(first, first + rows), ids.shape)}
        if self.export == "optimum":
            feeds["attention_mask"] = np.ones((batch, first + rows))
        if caches is None:
            empty = np.zeros((batch, 4, 0, 32), np.float32)
            pairs = [(f"past_key_values.{i}.key", f"past_key_values.{i}.value") if self.export == "optimum" else
                     (f"past_key.{i}", f"past_value.{i}") for i in range(5)]
            caches = {name: empty for pair in pairs for name in pair}
        args = []
        for name, value in {**{n: v.astype(np.int64) for n, v in feeds.items()}, **caches}.items():
            np.save(folder / f"{name}.npy", value)
            args += ["--input", f"{name}={folder / name}.npy"]
        must([self.npuc, "run", self.plan, "--threads", "1", "-o", folder / "out.npz", *args])
        with np.load(folder / "out.npz") as z:
            outputs = {name: z[name] for name in z.files}
        return outputs["logits"], {self.cache_name(n): v for n, v in outputs.items() if n != "logits"}


def window_loss(bard, start):
    """Sum of -log p over the windows start..start+BATCH-1 in float64."""
    stream = bard.array("test")
    windows = stream[:len(stream) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)[start:start + BATCH]
    ids = np.concatenate([np.full((len(windows), 1), BOS), windows[:, :-1]], axis=1)
    logits = bard.run(f"windows-{start}", ids)[0].astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    return float((log_sum - np.take_along_axis(logits, windows[..., None].astype(np.int64), axis=-1)[..., 0]).sum())


def check_perplexity(losses, bard, within):
    count = len(bard.array("test")) // CONTEXT * CONTEXT
    want = bard.reference["perplexity"][f"bard-{bard.export}"]["test"]
    got = float(np.exp(sum(losses) / count))
    print(f"perplexity of {bard.plan.parent.name}: {got:.6f}, reference {want:.6f}")
    assert abs(got / want - 1) <= within, f"perplexity {got:.6f}, reference {want:.6f}, allowed {100 * within} %"


def check_greedy(bard, prompt):
    want = prompt["greedy"]
    ids = ",".join(map(str, prompt["ids"]))
    out = json.loads(must([bard.npuc, "generate", bard.plan, "--tokens", ids, "--new", len(want), "--threads", "1", "--json"]))
    got = out["tokens"]
    same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    assert got == want, f"{len(got)} tokens, token {same} differs from the reference"


def check_logits(bard, _):
    """A prefill of 64 tokens, then one token with the cache that the prefill left."""
    logits, caches = bard.run("prefill", bard.array("prefill_ids"))
    step, _ = bard.run("decode", bard.array("decode_ids"), caches, first=64)
    for name, got in (("prefill", logits), ("decode", step)):
        error = float(np.abs(got - bard.array(f"{name}_logits")).max())
        assert error < 1e-3, f"{name} logits differ from the reference by {error:.3g}"


def check_cache(bard, _):
    """One pass over 24 tokens, against 16 tokens, then 5, then three single ones with the cache: the same bits."""
    ids = bard.array("prefill_ids")[:, :24]
    whole, whole_caches = bard.run("whole", ids)
    parts, caches, first = [], None, 0
    for rows in (16, 5, 1, 1, 1):
        logits, caches = bard.run(f"part-{first}", ids[:, first:first + rows], caches, first)
        parts.append(logits)
        first += rows
    parts = np.concatenate(parts, axis=1)
    assert np.array_equal(parts, whole), f"logits differ by up to {np.abs(parts - whole).max():.3g}"
    for name, rows in whole_caches.items():
        assert np.array_equal(caches[name], rows), f"cache '{name}' differs by up to {np.abs(caches[name] - rows).max():.3g}"


def check_full(bard, _):
    """A cache without room for a token more ends generation with a message, not with a wrong token."""
    ids = ",".join(["5"] * 30)
    plan = bard.scratch / "small.plan"
    must([bard.npuc, "compile", bard.folder / EXPORTS[bard.export], "--kv-capacity", "32", "--quiet", "-o", plan])
    done = call([bard.npuc, "generate", plan, "--tokens", ids, "--new", "8"])
    assert done.returncode == 5, f"exit code {done.returncode}, expected 5: {done.stderr[-200:]}"
    assert "32" in done.stderr, f"the message does not name the capacity: {done.stderr[-200:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = {e: Bard(options.npuc, options.folder, e, "fp32", pathlib.Path(scratch)) for e in EXPORTS}
        fp16 = Bard(options.npuc, options.folder, "optimum", "fp16", pathlib.Path(scratch))
        measured = [(fp32["optimum"], 0.001), (fp16, 0.01)]
        cases = []
        for bard in fp32.values():
            cases += [(f"{bard.export}: greedy {p['prompt']!r}", (check_greedy, bard, p)) for p in bard.reference["prompts"]]
            cases += [(f"{bard.export}: {f.__name__[6:]}", (f, bard, None)) for f in (check_logits, check_cache, check_full)]
        losses = {bard: [] for bard, _ in measured}
        add_loss = lambda bard, start: losses[bard].append(window_loss(bard, start))
        starts = range(0, len(fp16.array("test")) // CONTEXT, BATCH)
        cases += [(f"{bard.plan.parent.name}: windows from {s}", (add_loss, bard, s)) for bard, _ in measured for s in starts]
        code = run_cases(cases, lambda case: case[0](case[1], case[2]))
        for bard, within in measured:
            code |= run_cases([(f"{bard.plan.parent.name}: perplexity", bard)], lambda b, w=within: check_perplexity(losses[b], b, w))
    return code


if __name__ == "__main__":
    sys.exit(main())
