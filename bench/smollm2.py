#!/usr/bin/env python3
"""SmolLM2-135M on npuc and on onnxruntime, side by side in one run: a table on stderr, JSON lines on stdout.

    python bench/smollm2.py --npuc build/npuc --model DIR/model.onnx [--llama STRUCTURE/model.onnx] [--threads 2]

The model has the inputs of optimum's text-generation-with-past exports (input_ids, attention_mask, position_ids, past_key_values.*).
Rates are differences of two runs of different length, so that loading and prefill cancel; the tools take turns and each figure is
the median of the rounds. Needs numpy and onnxruntime.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile, time

PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is" or much like it: any ids will do
MIB = 1 << 20


def call(cmd):
    """(seconds, user+system seconds, peak resident bytes, stdout) of a command that must succeed."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        p = subprocess.Popen(cmd, stdout=out, stderr=err)
        _, status, use = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        secs = time.monotonic() - begin
        out.seek(0), err.seek(0)
        if p.returncode != 0:
            sys.exit(f"{' '.join(cmd)}: exit {p.returncode}\n{err.read().decode()[-500:]}")
        return secs, use.ru_utime + use.ru_stime, use.ru_maxrss * 1024, out.read().decode()


def mapped_bytes(model):
    return sum(f.stat().st_size for f in model.parent.iterdir() if f.name.startswith(model.name))


class Npuc:
    def __init__(self, args, plan):
        self.args, self.plan = args, plan

    def compile(self):
        runs = [call([self.args.npuc, "compile", str(self.args.model), "-o", str(self.plan), "--target", self.args.target])
                for _ in range(self.args.rounds)]
        return min(r[0] for r in runs), max(r[2] for r in runs) - mapped_bytes(self.args.model)

    def generate(self, tokens, new, mode="data"):
        cmd = [self.args.npuc, "generate", str(self.plan), "--tokens", ",".join(map(str, tokens)), "--new", str(new),
               "--threads", str(self.args.threads), "--mode", mode, "--json"]
        _, cpu, peak, out = call(cmd)
        self.peak = peak - self.plan.stat().st_size
        got = json.loads(out)
        return got["host_seconds"], cpu, got["tokens"]

    def decode(self, mode="data"):
        """(seconds, processor seconds) per token"""
        n = self.args.new
        short, long = self.generate(PROMPT, 2, mode), self.generate(PROMPT, 2 + n, mode)
        self.tokens = long[2]
        return (long[0] - short[0]) / n, (long[1] - short[1]) / n

    def prefill(self, tokens):
        return self.generate(tokens, 1)[0]


class Ort:
    def __init__(self, args):
        import numpy, onnxruntime
        self.np = numpy
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        self.session = onnxruntime.InferenceSession(str(args.model), options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.new = args.new

    def step(self, tokens, at, past):
        np = self.np
        feed = {"input_ids": np.array([tokens], np.int64), "attention_mask": np.ones((1, at + len(tokens)), np.int64),
                "position_ids": np.arange(at, at + len(tokens), dtype=np.int64)[None]}
        got = dict(zip(self.outputs, self.session.run(None, {k: v for k, v in {**feed, **past}.items() if k in self.inputs})))
        return int(got["logits"][0, -1].argmax()), {k: got[k.replace("past_key_values", "present")] for k in past}

    def empty(self):
        np = self.np
        return {k: np.zeros([d if isinstance(d, int) else 1 if n == 0 else 0 for n, d in enumerate(i.shape)], np.float32)
                for k, i in self.inputs.items() if k.startswith("past_key_values")}

    def decode(self):
        token, past = self.step(PROMPT, 0, self.empty())
        self.tokens, at = [token], len(PROMPT)
        token, past = self.step([token], at, past)
        self.tokens.append(token)
        begin, cpu = time.monotonic(), time.process_time()
        for i in range(self.new):
            at += 1
            token, past = self.step([token], at, past)
            self.tokens.append(token)
        return (time.monotonic() - begin) / self.new, (time.process_time() - cpu) / self.new

    def prefill(self, tokens):
        begin = time.monotonic()
        self.step(tokens, 0, self.empty())
        return time.monotonic() - begin


def median(pairs, column=0):
    return statistics.median(p[column] for p in pairs)


def measure_decode(args, npuc, ort, emit):
    data, both, other = [], [], []
    for _ in range(args.rounds):
        data.append(npuc.decode())
        same = npuc.tokens
        other.append(ort.decode())
        both.append(npuc.decode("both"))
    emit("decode npuc, data", 1 / median(data), "tokens/s")
    emit("decode onnxruntime", 1 / median(other), "tokens/s")
    emit("decode npuc / onnxruntime", median(other) / median(data), "", goal=">= 0.5")
    emit("the same by processor time", median(other, 1) / median(data, 1), "")
    emit("both / data", median(both) / median(data), "", goal="< 1.5")
    emit("the same by processor time, both / data", median(both, 1) / median(data, 1), "")
    emit("generate: peak memory beyond the plan", npuc.peak / MIB, "MiB")
    emit("first greedy tokens that agree", next((i for i, (a, b) in enumerate(zip(same, ort.tokens)) if a != b), len(ort.tokens)), "")


def measure_prefill(args, npuc, ort, emit):
    tokens = [(7 * i * i + 31 * i) % 40000 + 100 for i in range(512)]
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(npuc.prefill(tokens))
        theirs.append(ort.prefill(tokens))
    emit("prefill of 512, npuc", statistics.median(ours), "s")
    emit("prefill of 512, onnxruntime", statistics.median(theirs), "s")


def measure_estimate(args, name, model, emit):
    runs = [call([args.npuc, "estimate", str(model), "--target", args.target, "--context", "2048", "--kv-capacity", "2304", "--json"])
            for _ in range(args.rounds)]
    emit(f"estimate {name}, 2,048 tokens", min(r[0] for r in runs), "s", goal="< 1")
    emit(f"the same by processor time, {name}", min(r[1] for r in runs), "s")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--llama", type=pathlib.Path, help="a structure without weights, for estimate alone")
    ap.add_argument("--target", default="ascend-910b1")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--new", type=int, default=32, help="decode steps that are timed")
    ap.add_argument("--rounds", type=int, default=3)
    args = ap.parse_args()

    def emit(what, value, unit, goal=""):
        print(json.dumps({"case": what, "value": round(value, 4), "unit": unit, "goal": goal, "threads": args.threads}), flush=True)
        print(f"{what:48} {value:10.3f} {unit:9} {goal}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        npuc, ort = Npuc(args, pathlib.Path(folder) / "smollm2.plan"), Ort(args)
        seconds, memory = npuc.compile()
        emit("compile", seconds, "s", goal="< 5")
        emit("compile: peak memory beyond the model file", memory / MIB, "MiB", goal="< 400")
        measure_decode(args, npuc, ort, emit)
        measure_prefill(args, npuc, ort, emit)
    measure_estimate(args, "SmolLM2-135M", args.model, emit)
    if args.llama:
        measure_estimate(args, "Llama-3-8B", args.llama, emit)
    emit("load average of the machine", os.getloadavg()[0], "")


if __name__ == "__main__":
    main()
