#!/usr/bin/env python3
"""SmolLM2-135M on npuc and on onnxruntime, side by side in one run: a table on stderr, JSON lines on stdout.

    python bench/smollm2.py --npuc build/npuc --model DIR/model.onnx [--llama STRUCTURE/model.onnx] [--threads 2]
    python bench/smollm2.py --npuc build/npuc --model DIR/model.onnx --precisions

The model has the inputs of optimum's text-generation-with-past exports (input_ids, attention_mask, position_ids, past_key_values.*).
Rates are differences of two runs of different length, so that loading and prefill cancel; the tools take turns and each figure is
the median of the rounds. --precisions measures fp16 and quantised plans instead, beside what onnxruntime's own quantisers make of
the model, and ends with the table of docs/benchmarks.md. Needs numpy and onnxruntime, its 4-bit quantiser also onnx_ir.
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

    def compile(self, *options, rounds=None):
        runs = [call([self.args.npuc, "compile", str(self.args.model), "-o", str(self.plan), "--target", self.args.target, *options])
                for _ in range(rounds or self.args.rounds)]
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

    def prefill_both(self, tokens):
        """(seconds, processor seconds), those of a prompt of one token taken away"""
        one, all = self.generate(tokens[:1], 1), self.generate(tokens, 1)
        return all[0] - one[0], all[1] - one[1]


class Ort:
    def __init__(self, args, model=None):
        import numpy, onnxruntime
        self.np = numpy
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        self.session = onnxruntime.InferenceSession(str(model or args.model), options, providers=["CPUExecutionProvider"])
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

    def prefill_both(self, tokens):
        cpu = time.process_time()
        return self.prefill(tokens), time.process_time() - cpu


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


def ort_int8(model, folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    quantize_dynamic(str(model), str(folder / "int8.onnx"), weight_type=QuantType.QInt8, per_channel=True,
                     op_types_to_quantize=["MatMul", "Gemm"], use_external_data_format=True)
    return folder / "int8.onnx"


def ort_int4(model, folder, level):
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    form = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False, accuracy_level=level)
    made = MatMulNBitsQuantizer(onnx.load(str(model)), algo_config=form)
    made.process()
    made.model.save_model_to_file(str(folder / f"int4-{level}.onnx"), True)
    return folder / f"int4-{level}.onnx"


def measure_pair(args, name, ours, theirs, emit):
    """A plan and the models it stands beside: decode and a prompt of 256, by wall and processor time."""
    tokens = [(7 * i * i + 31 * i) % 40000 + 100 for i in range(256)]
    figures = {who: ([], []) for who in ("npuc", *theirs)}
    tools = {"npuc": ours, **{who: Ort(args, model) for who, model in theirs.items()}}
    for _ in range(args.rounds):
        for who, tool in tools.items():
            figures[who][0].append(tool.decode())
            figures[who][1].append(tool.prefill_both(tokens))
    for at, what in enumerate(("decode", "prefill of 256")):
        for who in tools:
            for column, time_of in enumerate(("", ", processor time")):
                emit(f"{name}: {what}, {who}{time_of}", median(figures[who][at], column) * 1e3, "ms")
    return {who: [tuple(median(runs, column) * 1e3 for column in (1, 0)) for runs in pair] for who, pair in figures.items()}


def print_table(results):
    """The figures of measure_pair per plan as a Markdown table: ms of processor time, of wall time in brackets, ratios of the former."""
    fp16 = results["fp16"]["npuc"][0][0]
    print("\n| plan | decode | onnxruntime | ratio | goal | reached | prefill | onnxruntime | ratio | goal | reached |\n" + "|---" * 11 + "|",
          file=sys.stderr)
    for name, figures in results.items():
        ours = figures.pop("npuc")
        goal = ">= 1" if name == "fp16" else ">= 1, faster than fp16"
        for row, (who, theirs) in enumerate(figures.items()):
            cells = [name if row == 0 else ""]
            for at, least in enumerate((1, 0.7)):
                ratio = theirs[at][0] / ours[at][0]
                met = ratio >= least and (at == 1 or name == "fp16" or ours[0][0] < fp16)
                cells += ["{:.0f} ({:.0f})".format(*ours[at]), "{}: {:.0f} ({:.0f})".format(who.removeprefix("onnxruntime "), *theirs[at]),
                          f"{ratio:.2f}", ">= 0.7" if at else goal, "yes" if met else "no"]
            print("| " + " | ".join(cells) + " |", file=sys.stderr)
    print(file=sys.stderr)


def measure_precisions(args, folder, emit):
    import importlib.util
    if not importlib.util.find_spec("onnx_ir"):
        sys.exit("smollm2.py: onnxruntime's 4-bit quantiser needs the package onnx_ir, which this Python does not have: pip install onnx_ir")
    results = {}
    int8 = {"onnxruntime int8": ort_int8(args.model, folder)}
    int4 = {f"onnxruntime int4, level {level}": ort_int4(args.model, folder, level) for level in (0, 4)}
    cases = {"fp16": (None, {"onnxruntime fp32": args.model}), "w8a8-dynamic": ("w8a8-dynamic", int8), "w4a16-g32": ("w4a16-g32", int4)}
    for name, (scheme, theirs) in cases.items():
        npuc, options = Npuc(args, folder / f"{name}.plan"), ["--precision", "fp16"]
        if scheme:
            recipe = str(folder / f"{name}.recipe")
            call([args.npuc, "quantize", str(args.model), "--scheme", scheme, "-o", recipe])
            options += ["--recipe", recipe]
        emit(f"{name}: compile", npuc.compile(*options, rounds=1)[0], "s")
        results[name] = measure_pair(args, name, npuc, theirs, emit)
        npuc.plan.unlink()
    print_table(results)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--npuc", required=True)
    ap.add_argument("--model", required=True, type=pathlib.Path)
    ap.add_argument("--llama", type=pathlib.Path, help="a structure without weights, for estimate alone")
    ap.add_argument("--target", default="ascend-910b1")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--new", type=int, default=32, help="decode steps that are timed")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--precisions", action="store_true", help="fp16, w8a8-dynamic and w4a16-g32 instead of fp32")
    args = ap.parse_args()

    def emit(what, value, unit, goal=""):
        print(json.dumps({"case": what, "value": round(value, 4), "unit": unit, "goal": goal, "threads": args.threads}), flush=True)
        print(f"{what:48} {value:10.3f} {unit:9} {goal}", file=sys.stderr, flush=True)

    if args.precisions:
        with tempfile.TemporaryDirectory() as folder:
            measure_precisions(args, pathlib.Path(folder), emit)
        emit("load average of the machine", os.getloadavg()[0], "")
        return
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
