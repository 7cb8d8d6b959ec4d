#!/usr/bin/env python3
"""Greedy answers of a language model on npuc (fp32, mode data) and on onnxruntime, token by token.

    NPUC_LIB=build/release PYTHONPATH=python python bench/answers.py --model DIR/model.onnx --tokenizer DIR --new 200

The model has the inputs of optimum's text-generation-with-past exports. Both sides choose the first largest logit; tokens that end a
text do not, so that all of --new are compared. Prints a line per prompt: tokens that agree from the first on, onnxruntime's smallest
distance between the two largest logits, seconds of both. Exit code 1 when an answer differs. Needs numpy, onnxruntime, tokenizers.
"""
import argparse
import pathlib
import sys
import time

import numpy as np
import onnxruntime

import npuc
from npuc.llm import Generator

PROMPTS = ["<|im_start|>user\nExplain in simple words why the sky is blue.<|im_end|>\n<|im_start|>assistant\n",
           "<|im_start|>user\nWrite a short story about a lighthouse keeper and a whale.<|im_end|>\n<|im_start|>assistant\n",
           "The three most important inventions of the nineteenth century were"]


class Reference:
    """The model on onnxruntime with its cache as inputs and outputs."""

    def __init__(self, model, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def empty(self):
        return {k: np.zeros([d if isinstance(d, int) else 1 if n == 0 else 0 for n, d in enumerate(i.shape)], np.float32)
                for k, i in self.inputs.items() if k.startswith("past_key_values")}

    def generate(self, ids, new):
        """(tokens, smallest distance between the two largest logits)"""
        tokens, gap, past, at, step = [], np.inf, self.empty(), 0, list(ids)
        while len(tokens) < new:
            feed = {"input_ids": np.array([step], np.int64), "attention_mask": np.ones((1, at + len(step)), np.int64),
                    "position_ids": np.arange(at, at + len(step), dtype=np.int64)[None], **past}
            got = dict(zip(self.outputs, self.session.run(None, {k: v for k, v in feed.items() if k in self.inputs})))
            logits = got["logits"][0, -1]
            second, first = np.partition(logits, -2)[-2:]
            gap, at = min(gap, float(first - second)), at + len(step)
            step = [int(logits.argmax())]
            tokens += step
            past = {k: got[k.replace("past_key_values", "present")] for k in past}
        return tokens, gap


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--tokenizer", required=True, type=pathlib.Path)
    ap.add_argument("--target", default="ascend-910b1")
    ap.add_argument("--new", type=int, default=200)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--prompt", action="append")
    args = ap.parse_args()
    reference, same = Reference(args.model, args.threads), True
    with npuc.compile(str(args.model), target=args.target) as plan:
        with Generator(plan, args.tokenizer, eos=[], threads=args.threads) as model:
            for prompt in args.prompt or PROMPTS:
                ids, begin = model.encode(prompt), time.monotonic()
                got = model.generate(ids, args.new).tokens
                middle = time.monotonic()
                want, gap = reference.generate(ids, args.new)
                agree = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
                print(f"{agree} of {args.new} tokens agree after {len(ids)}; smallest gap {gap:.3g}; {middle - begin:.1f} s, "
                      f"onnxruntime {time.monotonic() - middle:.1f} s", flush=True)
                same &= got == want
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
