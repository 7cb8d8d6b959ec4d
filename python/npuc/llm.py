"""Text in, text out: a tokenizer around `npuc generate`."""
import argparse
import sys

from tokenizers import Tokenizer

from ._command import NpucError, run_json


class TextGenerator:
    """Greedy text generation with a compiled plan.

    plan: path of a plan of a language model with a cache; tokenizer: path of a tokenizer.json;
    bos: token id put before every prompt, or None; eos: token id that ends a text, or None.
    """

    def __init__(self, plan, tokenizer, bos=None, eos=None):
        self.plan, self.bos, self.eos = plan, bos, eos
        self.tokenizer = Tokenizer.from_file(str(tokenizer))

    def encode(self, prompt):
        """Token ids of a prompt, list of int, with BOS where there is one."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return ([self.bos] if self.bos is not None else []) + ids

    def generate(self, prompt, new_tokens, *options):
        """Continues `prompt` by at most `new_tokens` tokens.

        Returns (text, report): the continuation and the command's JSON report (tokens, and with --mode both the times on the
        target). options: further arguments of `npuc generate`. Raises NpucError.
        """
        ids = ",".join(map(str, self.encode(prompt)))
        args = ["generate", self.plan, "--tokens", ids, "--new", new_tokens, "--json", *options]
        if self.eos is not None:
            args += ["--eos", self.eos]
        report = run_json(*args)
        return self.tokenizer.decode(report["tokens"]), report


def main():
    """python -m npuc.llm PLAN --tokenizer FILE --prompt TEXT"""
    ap = argparse.ArgumentParser(description="Generate text with a compiled plan.")
    ap.add_argument("plan")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--prompt", required=True)
    ap.add_argument("--new", type=int, default=64)
    ap.add_argument("--bos", type=int)
    ap.add_argument("--eos", type=int)
    args = ap.parse_args()
    try:
        text, _ = TextGenerator(args.plan, args.tokenizer, args.bos, args.eos).generate(args.prompt, args.new)
    except NpucError as e:
        print(e, file=sys.stderr)
        return e.code
    print(args.prompt + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
