"""Text in, text out: language models' plans on the emulated NPU, in process.

    from npuc.llm import Generator
    with Generator("model.plan", "folder/of/tokenizer") as model:
        for piece in model.stream("To be", new_tokens=40, temperature=0.8, seed=7):
            print(piece.text, end="", flush=True)
"""
import argparse
import dataclasses
import json
import sys

from . import _tokens
from ._errors import NpucError
from ._session import Session
from ._text import Growing, Text
from ._tokens import Model, Sampling, Times

__all__ = ["Generator", "Piece", "Result", "Sampling", "Times", "main"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a step adds to a sequence: text may be "" while characters or stop texts are incomplete; finish is None, or why
    the sequence ended: "stop", "length" or "capacity"."""

    token: int
    text: str
    finish: str | None = None
    sequence: int = 0


@dataclasses.dataclass
class Result:
    """A continuation. times are those of its whole batch."""

    text: str
    tokens: list
    prompt_tokens: int
    finish: str
    times: Times


def _sampling(options):
    known = {f.name for f in dataclasses.fields(Sampling)}
    for name in options:
        if name not in known:
            raise NpucError(2, f"no option is called '{name}'; there is {', '.join(sorted(known))}")
    return Sampling(**options)


class Generator:
    """Generates with a plan.

    plan: what Session takes; tokenizer: what Text takes, or None for token ids alone; bos: id put in front of prompts that do
    not begin with it, by default what the tokenizer says; eos: id or list of ids that end a text, by default the tokenizer's.
    threads, mode ("data" or "both") and compile options as for Session. Used by one thread at a time. Raises NpucError.
    """

    def __init__(self, plan, tokenizer=None, *, bos=None, eos=None, threads=1, mode="data", **options):
        self.text = Text(tokenizer) if tokenizer is not None else None
        self.session = Session(plan, threads=threads, mode=mode, **options)
        try:
            self.model = Model(self.session)
            self._check_size()
        except NpucError:
            self.session.close()
            raise
        self.bos = bos
        self.ends = set(eos if isinstance(eos, (list, tuple, set)) else [eos]) if eos is not None else self._ends()
        self.times, self._cached = Times(), []

    def _check_size(self):
        known = self.model.vocabulary
        if self.text and known is not None and self.text.size() > known:
            raise NpucError(3, f"the tokenizer has {self.text.size()} tokens, the model a vocabulary of {known}: they do not belong together")

    def _ends(self):
        return self.text.ends() if self.text else set()

    def close(self):
        """Frees the session."""
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def encode(self, prompt):
        """Token ids of a prompt: text, ids, or a list of chat messages (dicts)."""
        if isinstance(prompt, str):
            ids = self._need_text().encode(prompt)
        elif prompt and isinstance(prompt[0], dict):
            ids = self._need_text().encode(self.text.chat(prompt), special=False)
        else:
            return [int(i) for i in prompt]
        return [self.bos, *ids] if self.bos is not None and ids[:1] != [self.bos] else ids

    def _need_text(self):
        if not self.text:
            raise NpucError(2, "text needs a tokenizer; without one prompts are token ids")
        return self.text

    def stream(self, prompt, new_tokens=128, *, stop=(), chunk=None, progress=None, reuse=False, **sampling):
        """Continues one prompt; an iterator of Piece.

        prompt: text, list of int, or chat messages. stop: texts before which the result ends. chunk: tokens of the prompt per
        call, None: all. progress(done, total): called after each of them. reuse: take what the caches hold of the prompt
        from the last call. sampling: fields of Sampling.
        """
        ids = self.encode(prompt)
        yield from self._run([ids], new_tokens, stop, chunk, progress, self._kept(ids) if reuse else 0, sampling)

    def _kept(self, ids):
        n = 0
        while n < min(len(ids) - 1, len(self._cached)) and ids[n] == self._cached[n]:
            n += 1
        return n

    def _run(self, prompts, new_tokens, stop, chunk, progress, kept, sampling):
        texts = [Growing(self.text, stop) if self.text else None for _ in prompts]
        if stop and not self.text:
            raise NpucError(2, "stop texts need a tokenizer")
        self.times, alone = Times(), len(prompts) == 1
        self._cached = []
        steps = _tokens.generate(self.model, prompts, new_tokens, _sampling(sampling), self.ends, chunk=chunk, progress=progress,
                                 kept=kept, times=self.times)
        ended, seen = None, list(prompts[0])
        try:
            while True:
                made = steps.send(ended)
                self._cached = seen[: self.model.length] if alone else []
                ended = set()
                for b, (token, finish) in enumerate(made):
                    if token is None:
                        continue
                    seen += [token] if alone else []
                    piece = self._piece(texts[b], b, token, finish)
                    if piece.finish:
                        ended.add(b)
                    yield piece
        except StopIteration:
            return

    @staticmethod
    def _piece(text, sequence, token, finish):
        if not text:
            return Piece(token, "", finish, sequence)
        out = text.push(token)
        if finish and not text.stopped:
            out += text.finish()
        return Piece(token, out, "stop" if text.stopped else finish, sequence)

    def generate(self, prompt, new_tokens=128, **options):
        """Continues a prompt, or a list of prompts as a batch. Options as for stream. Returns a Result, or a list of them.

        A batch runs in one call per step where the model has an axis for sequences and, when lengths differ, rows of its own
        for each or a mask. Otherwise its prompts run one after another.
        """
        many = isinstance(prompt, (list, tuple)) and len(prompt) > 0 and not isinstance(prompt[0], (int, dict))
        prompts = [self.encode(p) for p in (prompt if many else [prompt])]
        results = self._together(prompts, new_tokens, options) if self.model.takes([len(p) for p in prompts]) else \
            [self._together([p], new_tokens, {**options, "seed": options.get("seed", 0) + b})[0] for b, p in enumerate(prompts)]
        return results if many else results[0]

    def _together(self, prompts, new_tokens, options):
        options = dict(options)
        stop, chunk, progress = options.pop("stop", ()), options.pop("chunk", None), options.pop("progress", None)
        kept = self._kept(prompts[0]) if options.pop("reuse", False) and len(prompts) == 1 else 0
        results = [Result("", [], len(p), "length", None) for p in prompts]
        for piece in self._run(prompts, new_tokens, stop, chunk, progress, kept, options):
            r = results[piece.sequence]
            r.text += piece.text
            r.tokens.append(piece.token)
            r.finish = piece.finish or r.finish
        for r in results:
            r.times = self.times
        return results


# ---- the command ----

def _arguments(argv):
    ap = argparse.ArgumentParser(prog="python -m npuc.llm", description="Generate text with a compiled plan.")
    ap.add_argument("plan", help="a plan, or a model to compile first")
    ap.add_argument("--tokenizer", required=True, help="tokenizer.json or its folder")
    ap.add_argument("--prompt", action="append", help="text to continue; several: a batch; without it: a chat on standard input")
    ap.add_argument("--system", help="system message of the chat")
    ap.add_argument("--new", type=int, default=128, help="tokens at most; default 128")
    ap.add_argument("--bos", type=int, help="id in front of prompts")
    ap.add_argument("--eos", type=int, action="append", help="ids that end a text; default: the tokenizer's")
    ap.add_argument("--stop", action="append", default=[], help="text before which the result ends")
    for field in dataclasses.fields(Sampling):
        ap.add_argument("--" + field.name.replace("_", "-"), type=field.type, default=field.default, help=f"default {field.default}")
    ap.add_argument("--chunk", type=int, help="tokens of the prompt per call")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--mode", choices=("data", "both"), default="data", help="both: times on the target too")
    ap.add_argument("--target", help="when a model is compiled")
    ap.add_argument("--json", action="store_true", help="results as JSON")
    return ap.parse_args(argv)


def _show_progress(done, total):
    if sys.stderr.isatty() and done < total:
        print(f"\r  prompt {done} of {total} tokens ", end="", file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _show_times(model):
    t = model.times
    line = f"{t.prefill_tokens} tokens read, {t.decode_steps} steps; this host: {t.decode_steps / (t.host_decode_s or 1):.1f} steps/s"
    if t.prefill_us:
        line += f"; {model.model.target()}: first token after {t.prefill_us / 1e3:.2f} ms"
    if t.decode_us:
        line += f", {1e6 * t.decode_steps / t.decode_us:.0f} steps/s"
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _answer(model, prompt, args, options):
    """Streams one continuation to standard output; its text."""
    whole = ""
    for piece in model.stream(prompt, args.new, reuse=True, **options):
        print(piece.text, end="", flush=True)
        whole += piece.text
    print(flush=True)
    _show_times(model)
    return whole


def _chat(model, args, options):
    messages = [{"role": "system", "content": args.system}] if args.system else []
    while True:
        print("> " if sys.stdin.isatty() else "", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        messages.append({"role": "user", "content": line.rstrip("\n")})
        messages.append({"role": "assistant", "content": _answer(model, messages, args, options)})


def _run(args):
    options = {f.name: getattr(args, f.name) for f in dataclasses.fields(Sampling)}
    options.update(stop=args.stop, chunk=args.chunk, progress=_show_progress)
    compiled = {"target": args.target} if args.target else {}
    with Generator(args.plan, args.tokenizer, bos=args.bos, eos=args.eos, threads=args.threads, mode=args.mode, **compiled) as model:
        if not args.prompt:
            _chat(model, args, options)
        elif len(args.prompt) == 1 and not args.json:
            print(args.prompt[0], end="", flush=True)
            _answer(model, args.prompt[0], args, options)
        else:
            results = model.generate(args.prompt, args.new, **options)
            if args.json:
                print(json.dumps([dataclasses.asdict(r) for r in results], ensure_ascii=False))
            else:
                print("\n\n".join(p + r.text for p, r in zip(args.prompt, results)))
                _show_times(model)


def main(argv=None):
    """python -m npuc.llm PLAN --tokenizer FILE --prompt TEXT; the exit code of npuc's commands."""
    try:
        _run(_arguments(argv))
    except NpucError as e:
        print(e, file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
