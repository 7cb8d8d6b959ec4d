#!/usr/bin/env python3
"""The tables of docs/quantization.md: what schemes cost, beside onnxruntime's own quantiser where that is installed.

    python bench/quantization.py --npuc build/npuc [--table bard|smollm2|vision] [--write docs/quantization.md]
                                 [--model DIR/model.onnx [--tokens TEXT.npy --calib CALIB.npy --bos 0]]   SmolLM2, or its like
                                 [--windows N] [--only PART] [--have ROWS.jsonl] [--check]

Rows: bench/quantization.tsv. Tables of text are perplexities in windows of 256 tokens, paired with the plan of the model as it is;
those of vision the least cosine between outputs with codes and without, over inputs that calibration has not seen. --check holds the
rows that have a limit of its own to it, on a few windows, and fails (exit 1) where one is beyond it. JSON lines
go to stdout; --have takes those of an interrupted run, so far as they are of the same npuc. Without --tokens the model reads what bard
reads, in tokens of the tokenizer.json beside it: the first 2,048 of Twelfth Night, calibrated with 8 windows of bard's calibration text.
bench/smollm2_model.py makes the model. Needs numpy, for such texts tokenizers, for vision and for comparing onnxruntime (4 bits: onnx_ir).
"""
import argparse
import hashlib
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONVOLUTIONS = ["resnet8-float-op13", "resnet18-small-keepbn-op11", "mobilenetv3-small-dynamo-op18", "convnext-dynamo-op20"]
UNEQUAL = ", unequal" # the model, but channels between its convolutions have very different sizes
VISION = [*CONVOLUTIONS, "resnet8-float-op13" + UNEQUAL, "mobilenetv3-small-dynamo-op18" + UNEQUAL,
          "vit-tiny-torchscript-op14"] # limits are for CONVOLUTIONS: a transformer has a scale per token
CALIBRATING, SEEN_BY_NONE = 32, 8 # runs of vision
CHECK_WINDOWS, CHECK_RUNS = 4, 16
TEXT_TOKENS, TEXT_RUNS, WINDOW = 2048, 8, 256 # of a model with a tokenizer of its own


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(str(c) for c in command[:4])} ...: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def rows(o, *parts):
    """(name, options of npuc quantize, limit) of the rows of these tables that were asked for."""
    for line in (ROOT / "bench/quantization.tsv").read_text(encoding="utf-8").splitlines():
        if line and line[0] != "#":
            part, name, options, *limits = line.split("\t")
            limit = limits[1 if o.check else 0]
            if part in parts and o.only in name and not (o.check and limit == "-"):
                yield name, options, None if limit == "-" else float(limit)


def quantized(o, d, model, options, calib):
    """Plan of the model by these options of npuc quantize; seconds of quantising."""
    begin = time.monotonic()
    words = [str(calib) if w == "C" else w for w in shlex.split(options)]
    few = ["--runs", CHECK_RUNS] if o.check and "C" in shlex.split(options) else []
    run(o.npuc, "quantize", model, "-o", d / "r.recipe", "--quiet", *words, *few)
    took = time.monotonic() - begin
    run(o.npuc, "compile", model, "--recipe", d / "r.recipe", "-o", d / "q.plan", "--quiet", "--target", o.target)
    return d / "q.plan", took


def report(o, **row):
    row["npuc"] = o.build
    print(json.dumps(row), flush=True)
    return row


def known(o, table, row):
    """The row as an earlier run has it; None: it has to be measured."""
    for r in o.known:
        if (r["npuc"], r["table"], r["row"]) == (o.build, table, row):
            print(json.dumps(r), flush=True)
            return r
    return None


# ---- text


def texts_of(o, bard, d):
    """Tokens of bard's texts in the vocabulary of another model: files of the text to read and of windows to calibrate with."""
    from tokenizers import Tokenizer
    mine, theirs = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (o.model.parent, bard))

    def tokens(text):
        return np.array(mine.encode(text, add_special_tokens=False).ids, np.int32)

    np.save(d / "text.npy", tokens((bard / "eval/test.txt").read_text(encoding="utf-8"))[:TEXT_TOKENS])
    other = tokens("\n".join(theirs.decode(row[1:].tolist()) for row in np.load(bard / "eval/calib.npy")))
    rows = other[:TEXT_RUNS * (WINDOW - 1)].reshape(TEXT_RUNS, WINDOW - 1)
    np.save(d / "calib.npy", np.concatenate([np.full((TEXT_RUNS, 1), o.bos, np.int32), rows], 1))
    return d / "text.npy", d / "calib.npy"


def perplexity(o, plan, text, *more):
    count = ["--windows", o.windows] if o.windows else []
    return json.loads(run(o.npuc, "perplexity", plan, "--tokens", text.tokens, "--window", WINDOW, "--bos", text.bos, "--json",
                          "--threads", "2", *count, *more))


def text_rows(o, d, text):
    plain = d / "plain.plan"
    run(o.npuc, "compile", text.model, "-o", plain, "--quiet", "--target", o.target)
    got = [known(o, text.name, "float32") or report(o, table=text.name, row="float32", perplexity=perplexity(o, plain, text)["perplexity"],
                                                    change=0.0, bytes=plain.stat().st_size)]
    for name, options, limit in rows(o, "text", text.name):
        row = known(o, text.name, name)
        if row:
            got.append(row)
            continue
        plan, took = quantized(o, d, text.model, options, text.calib)
        p = perplexity(o, plan, text, "--reference", plain)
        got.append(report(o, table=text.name, row=name, perplexity=p["perplexity"], change=100 * p["change"],
                          error=100 * p["change_standard_error"], kl=p["kl"]["mean"], agreement=p["top1_agreement"],
                          bytes=plan.stat().st_size, seconds=round(took, 1), limit=limit))
    return got


def text_table(got):
    lines = ["| scheme | perplexity | change | KL to float32 | same top word | plan, MB |", "|---|---|---|---|---|---|"]
    for r in got:
        more = f"{r['kl']:.5f} | {100 * r['agreement']:.1f} %" if "kl" in r else "- | -"
        change = f"{r['change']:+.2f} % ± {r['error']:.2f}" if "error" in r else "-"
        lines.append(f"| {r['row']} | {r['perplexity']:.4f} | {change} | {more} | {r['bytes'] / 1e6:.2f} |")
    return lines


# ---- onnxruntime's quantiser on the same text


def ort_forms(text):
    """(name, function that writes the quantised model)"""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits
    import onnx

    def dynamic(out):
        quantize_dynamic(text.model, out, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])

    def four(block, how):
        def write(out):
            q = nbits.MatMulNBitsQuantizer(onnx.load(text.model), block_size=block, is_symmetric=False, algo_config=how)
            q.process()
            q.model.save_model_to_file(str(out))
        return write

    hqq = nbits.HQQWeightOnlyQuantConfig
    return [("onnxruntime dynamic int8", dynamic), ("onnxruntime 4 bits, 32", four(32, None)),
            ("onnxruntime 4 bits, 128", four(128, None)), ("onnxruntime HQQ, 32", four(32, hqq(block_size=32)))]


def ort_perplexity(o, path, text):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    s = ort.InferenceSession(str(path), options)
    tokens = np.load(text.tokens).ravel()
    starts = range(0, len(tokens), WINDOW - 1)[:o.windows or None]
    nats = count = 0
    for at in starts: # as npuc perplexity has it: BOS in front of the others
        ids = np.concatenate([[text.bos], tokens[at:at + WINDOW - 1]]).astype(np.int64)[None]
        n = ids.shape[1]
        feeds = {}
        for i in s.get_inputs():
            sizes = {"batch_size": 1, "sequence_length": n, "past_sequence_length": 0}
            shape = [sizes.get(v, n) if isinstance(v, str) else v for v in i.shape]
            value = {"input_ids": ids, "attention_mask": np.ones((1, n), np.int64), "position_ids": np.arange(n)[None]}
            feeds[i.name] = value.get(i.name, np.zeros(shape, np.float32)) if i.name in value else np.zeros(shape, np.float32)
        logits = s.run(["logits"], feeds)[0][0, :-1].astype(np.float64)
        top = logits.max(1)
        nats += float((np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[np.arange(n - 1), ids[0, 1:]]).sum())
        count += n - 1
    return float(np.exp(nats / count))


def ort_text_rows(o, d, text, plain):
    got = []
    try:
        forms = ort_forms(text)
    except ImportError as e:
        print(f"without onnxruntime's quantiser: {e}", file=sys.stderr)
        return got
    for name, write in forms:
        row = known(o, text.name, name)
        if row:
            got.append(row)
        elif o.only in name:
            path = d / "ort.onnx"
            try:
                write(path)
                p = ort_perplexity(o, path, text)
            except Exception as e: # the tool's own limits are a row too
                print(f"{name}: {type(e).__name__}: {str(e)[:200]}", file=sys.stderr)
                continue
            got.append(report(o, table=text.name, row=name, perplexity=p, change=100 * (p / plain - 1)))
    return got


def ort_table(got):
    lines = ["", "| the same text | perplexity | change |", "|---|---|---|"]
    return lines + [f"| {r['row']} | {r['perplexity']:.4f} | {r['change']:+.2f} % |" for r in got] if got else []


# ---- vision


def write_unequal(path, out):
    """The same function, but channels between a convolution and the next are multiplied by 0.1 to 10 on the way out of one and divided on
    the way into the other, as training may leave them: cross-layer equalisation is to undo it."""
    import onnx
    m = onnx.load(path)
    g, random = m.graph, np.random.default_rng(11)
    data = {t.name: t for t in g.initializer}
    readers = {}
    for n in g.node:
        for x in n.input:
            readers.setdefault(x, []).append(n)

    def scale(name, factors, axis, groups=1):
        w = onnx.numpy_helper.to_array(data[name])
        per = w.reshape(groups, -1, *w.shape[1:]) if axis else w # groups of output channels, each with its input channels
        f = factors.reshape(groups, 1, -1) if axis else factors
        f = f.reshape(*f.shape, *[1] * (per.ndim - f.ndim))
        data[name].CopyFrom(onnx.numpy_helper.from_array((per * f).reshape(w.shape).astype(w.dtype), name))

    for n in g.node:
        if n.op_type != "Conv":
            continue
        vectors, v = n.input[1:3], n.output[0]
        while len(readers.get(v, [])) == 1 and readers[v][0].op_type in ("Relu", "BatchNormalization"):
            if readers[v][0].op_type == "BatchNormalization":
                vectors = readers[v][0].input[1:3]
            v = readers[v][0].output[0]
        after = readers.get(v, [])
        if len(after) != 1 or after[0].op_type != "Conv" or after[0].input[1] == n.input[1]:
            continue
        factors = 10 ** random.uniform(-1, 1, data[vectors[0]].dims[0])
        for name in vectors:
            scale(name, factors, 0)
        scale(after[0].input[1], 1 / factors, 1, next((a.i for a in after[0].attribute if a.name == "group"), 1))
    onnx.save(m, out)


class Vision:
    def __init__(self, models, name, d):
        folder = models / name.removesuffix(UNEQUAL)
        self.name, self.model = name, folder / "model.onnx"
        case = sorted((folder / "cases").iterdir())[0]
        file = next((case / "inputs").glob("*.npy"))
        self.input, self.shape = file.stem, np.load(file).shape
        random = np.random.default_rng(7)
        self.calib = d / "calib"
        self.calib.mkdir(exist_ok=True)
        for i in range(CALIBRATING):
            np.savez(self.calib / f"{i:02}.npz", **{self.input: self.draw(random)})
        self.tests = [self.draw(random) for _ in range(SEEN_BY_NONE)]
        if name.endswith(UNEQUAL):
            write_unequal(self.model, d / "model.onnx")
            self.model = d / "model.onnx"

    def draw(self, random):
        return random.standard_normal(self.shape).astype(np.float32)

    def outputs(self, o, d, plan):
        got = []
        for x in self.tests:
            np.save(d / "x.npy", x)
            run(o.npuc, "run", plan, "--input", f"{self.input}={d / 'x.npy'}", "--output-dir", d / "out")
            files = json.loads((d / "out/outputs.json").read_text(encoding="utf-8"))
            y = np.load(d / "out" / sorted(files.values())[0]).astype(np.float64)
            got += list(y.reshape(len(y), -1))
        return got


def cosines(a, b):
    return [float(x @ y / np.sqrt((x @ x) * (y @ y))) for x, y in zip(a, b)]


def ort_vision(v, d):
    """Outputs of the model quantised by onnxruntime: per channel, minmax, the same data."""
    try:
        import onnxruntime as ort
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError:
        return None

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.files = iter(sorted(v.calib.glob("*.npz")))

        def get_next(self):
            f = next(self.files, None)
            return dict(np.load(f)) if f else None

    ort.set_default_logger_severity(4)
    quantize_static(v.model, d / "ort.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                    op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    s = ort.InferenceSession(str(d / "ort.onnx"), options)
    got = []
    for x in v.tests:
        y = s.run(None, {v.input: x})[0].astype(np.float64)
        got += list(y.reshape(len(y), -1))
    return got


def vision_rows(o, d):
    got = []
    for name in CONVOLUTIONS if o.check else VISION:
        scratch = d / name
        scratch.mkdir()
        v = Vision(o.models, name, scratch)
        run(o.npuc, "compile", v.model, "-o", scratch / "plain.plan", "--quiet", "--target", o.target)
        plain = v.outputs(o, scratch, scratch / "plain.plan")
        for row, options, limit in rows(o, "vision"):
            plan, took = quantized(o, scratch, v.model, options, v.calib)
            c = cosines(plain, v.outputs(o, scratch, plan))
            got.append(report(o, table="vision", model=name, row=row, cosine=min(c), mean=float(np.mean(c)), seconds=round(took, 1),
                              limit=limit if name in CONVOLUTIONS else None))
        theirs = None
        try:
            theirs = None if o.check or o.only else ort_vision(v, scratch)
        except Exception as e: # its own limits: old operator sets
            print(f"onnxruntime, {name}: {type(e).__name__}: {str(e)[:120]}", file=sys.stderr)
        if theirs:
            c = cosines(plain, theirs)
            got.append(report(o, table="vision", model=name, row="onnxruntime static", cosine=min(c), mean=float(np.mean(c))))
    return got


def vision_table(got):
    names = list(dict.fromkeys(r["row"] for r in got))
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for model in dict.fromkeys(r["model"] for r in got):
        cells = {r["row"]: f"{r['cosine']:.5f}" for r in got if r["model"] == model}
        lines.append(f"| {model} | " + " | ".join(cells.get(n, "-") for n in names) + " |")
    return lines


# ---- the page


def replace(page, table, lines):
    """Lines between <!-- table NAME --> and <!-- end -->."""
    text = page.read_text(encoding="utf-8")
    start = f"<!-- table {table} -->\n"
    if start not in text:
        sys.exit(f"{page}: expected a line {start.strip()}")
    before, rest = text.split(start, 1)
    page.write_text(before + start + "\n" + "\n".join(lines) + "\n\n<!-- end -->" + rest.split("<!-- end -->", 1)[1], encoding="utf-8")


def over(r):
    """What is wrong with a row; None: within its limit."""
    if r.get("limit") is None:
        return None
    if "cosine" in r:
        return None if r["cosine"] >= r["limit"] else f"{r['model']}, {r['row']}: cosine {r['cosine']:.5f}, expected {r['limit']} or more"
    return None if r["kl"] <= r["limit"] else f"{r['row']}: KL divergence {r['kl']:.5f}, expected {r['limit']} at most"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--npuc", required=True, type=pathlib.Path)
    p.add_argument("--table", action="append", choices=["bard", "smollm2", "vision"])
    p.add_argument("--target", default="ascend-910b1")
    p.add_argument("--models", type=pathlib.Path, default=ROOT / "tests/models")
    p.add_argument("--model", type=pathlib.Path)
    p.add_argument("--tokens", type=pathlib.Path)
    p.add_argument("--calib", type=pathlib.Path)
    p.add_argument("--bos", type=int, default=0)
    p.add_argument("--windows", type=int, default=0)
    p.add_argument("--only", default="")
    p.add_argument("--have", type=pathlib.Path)
    p.add_argument("--check", action="store_true")
    p.add_argument("--write", type=pathlib.Path)
    o = p.parse_args()
    o.windows = o.windows or (CHECK_WINDOWS if o.check else 0)
    o.build = hashlib.sha256(o.npuc.read_bytes()).hexdigest()[:12]
    o.known = [json.loads(line) for line in o.have.read_text(encoding="utf-8").splitlines()] if o.have else []
    bard = ROOT / "examples/bard"
    texts = {"bard": argparse.Namespace(name="bard", model=bard / "model.onnx", tokens=bard / "eval/test.npy",
                                        calib=bard / "eval/calib.npy", bos=0)}
    made = tempfile.TemporaryDirectory()
    if o.model:
        if (o.tokens is None) != (o.calib is None):
            p.error("--tokens and --calib go together")
        tokens, calib = (o.tokens, o.calib) if o.tokens else texts_of(o, bard, pathlib.Path(made.name))
        texts["smollm2"] = argparse.Namespace(name="smollm2", model=o.model, tokens=tokens, calib=calib, bos=o.bos)
    wanted = o.table or [*texts, "vision"]
    all_rows = []
    for table in wanted:
        if table != "vision" and table not in texts:
            p.error("the table smollm2 wants --model")
        with tempfile.TemporaryDirectory() as scratch:
            d = pathlib.Path(scratch)
            if table == "vision":
                got = vision_rows(o, d)
                lines = vision_table(got)
            else:
                got = text_rows(o, d, texts[table])
                theirs = [] if o.check else ort_text_rows(o, d, texts[table], got[0]["perplexity"])
                lines = text_table(got) + ort_table(theirs)
        all_rows += got
        print("\n".join(lines), file=sys.stderr)
        if o.write:
            replace(o.write, table, lines)
    faults = [f for f in map(over, all_rows) if f] if o.check else []
    for f in faults:
        print(f"FAILED {f}")
    if o.check:
        held = sum(r.get("limit") is not None for r in all_rows)
        print(f"{held - len(faults)} of {held} rows within their limits")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
