#!/usr/bin/env python3
"""Decoder graphs of published language models at full size, without their weights: for npuc estimate, check and inspect.

    python bench/structures/dense.py llama-3-8b -o llama-3-8b.onnx
    npuc estimate llama-3-8b.onnx --sweep batch=1,8,32 --sweep seq=512,4096 --compare all

All weights are declared as external data in a file that is not written. Grouped-query attention with rotary embeddings, RMS norms, a
gated MLP; caches grow by rows (past_key_values.I.key, .value). Logits are of the last position, as a server asks for them. Needs onnx.
The numbers of a row are those of the model's published config.json.
"""
import argparse
import dataclasses
import pathlib
import sys

import onnx
from onnx import TensorProto as T
from onnx import helper


@dataclasses.dataclass(frozen=True)
class Config:
    """hidden_size, num_hidden_layers, heads of query and of key and value, head_dim, intermediate_size, vocab_size; bias: of query,
    key and value; qk_norm: norms of query's and key's heads; tied: the embedding is the output product's weight."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocab: int
    positions: int
    bias: bool = False
    qk_norm: bool = False
    tied: bool = False


CONFIGS = {
    "llama-3-8b": Config(4096, 32, 32, 8, 128, 14336, 128256, 8192),
    "llama-3-70b": Config(8192, 80, 64, 8, 128, 28672, 128256, 8192),
    "qwen2.5-7b": Config(3584, 28, 28, 4, 128, 18944, 152064, 32768, bias=True),
    "qwen2.5-72b": Config(8192, 80, 64, 8, 128, 29568, 152064, 32768, bias=True),
    "qwen3-8b": Config(4096, 36, 32, 8, 128, 12288, 151936, 40960, qk_norm=True),
}
DTYPES = {"fp16": (T.FLOAT16, 2), "bf16": (T.BFLOAT16, 2), "fp32": (T.FLOAT, 4)}


class Structure:
    """A graph under construction. Methods return names of values."""

    def __init__(self, config, dtype, data):
        self.c, (self.dtype, self.size), self.data = config, DTYPES[dtype], data
        self.nodes, self.weights, self.offset, self.count = [], [], 0, 0

    def op(self, kind, *inputs, outputs=1, name=None, **attributes):
        self.count += 1
        outs = [f"{name or kind.lower()}_{self.count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outs, name=f"{name or kind}_{self.count}", **attributes))
        return outs[0] if outputs == 1 else outs

    def weight(self, name, *dims):
        """A tensor in the data file that nobody writes."""
        t = onnx.TensorProto(name=name, data_type=self.dtype, dims=dims, data_location=T.EXTERNAL)
        length = self.size
        for d in dims:
            length *= d
        for key, value in (("location", self.data), ("offset", str(self.offset)), ("length", str(length))):
            t.external_data.add(key=key, value=value)
        self.offset += (length + 4095) // 4096 * 4096
        self.weights.append(t)
        return name

    def integers(self, *values, scalar=False):
        self.count += 1
        name = f"integers_{self.count}"
        self.weights.append(helper.make_tensor(name, T.INT64, [] if scalar else [len(values)], values))
        return name

    def product(self, x, name, rows, columns, bias=False):
        y = self.op("MatMul", x, self.weight(f"{name}.weight", rows, columns), name=name)
        return self.op("Add", y, self.weight(f"{name}.bias", columns), name=name) if bias else y

    def norm(self, x, name, columns):
        return self.op("RMSNormalization", x, self.weight(f"{name}.weight", columns), axis=-1, epsilon=1e-5, name=name)

    def heads(self, x, n):
        """[batch, seq, n*head] as [batch, n, seq, head]"""
        split = self.op("Reshape", x, self.integers(0, 0, n, self.c.head))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, x, i, mask):
        c, at = self.c, f"layers.{i}.attention"
        q, k, v = (self.heads(self.product(x, f"{at}.{n}", c.hidden, h * c.head, c.bias), h)
                   for n, h in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)))
        if c.qk_norm:
            q, k = self.norm(q, f"{at}.q_norm", c.head), self.norm(k, f"{at}.k_norm", c.head)
        q, k = (self.op("RotaryEmbedding", y, "cos", "sin", "position_ids") for y in (q, k))
        y, key, value = f"attention.{i}", f"present.{i}.key", f"present.{i}.value"
        self.nodes.append(helper.make_node("Attention", [q, k, v, mask, f"past_key_values.{i}.key", f"past_key_values.{i}.value"],
                                           [y, key, value], name=at, scale=c.head ** -0.5))
        flat = self.op("Reshape", self.op("Transpose", y, perm=[0, 2, 1, 3]), self.integers(0, 0, c.heads * c.head))
        return self.product(flat, f"{at}.o", c.heads * c.head, c.hidden)

    def mlp(self, x, i):
        c, at = self.c, f"layers.{i}.mlp"
        gate, up = (self.product(x, f"{at}.{n}", c.hidden, c.mlp) for n in ("gate", "up"))
        return self.product(self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up), f"{at}.down", c.mlp, c.hidden)

    def mask(self):
        """May row s of the new tokens see row t of the cache? bool [batch, 1, seq, total]"""
        total = self.op("Squeeze", self.op("Shape", "attention_mask", start=1, end=2))
        rows = self.op("Range", self.integers(0, scalar=True), total, self.integers(1, scalar=True))
        new = self.op("Unsqueeze", "position_ids", self.integers(1, 3))
        given = self.op("Unsqueeze", self.op("Cast", "attention_mask", to=T.BOOL), self.integers(1, 2))
        return self.op("And", self.op("LessOrEqual", rows, new), given)

    def tables(self):
        self.weight("cos", self.c.positions, self.c.head // 2), self.weight("sin", self.c.positions, self.c.head // 2)

    def caches(self):
        return "key", "value"

    def build(self):
        c = self.c
        table = self.weight("embedding.weight", c.vocab, c.hidden)
        self.tables()
        x, mask = self.op("Gather", table, "input_ids"), self.mask()
        for i in range(c.layers):
            x = self.op("Add", x, self.attention(self.norm(x, f"layers.{i}.norm1", c.hidden), i, mask))
            x = self.op("Add", x, self.mlp(self.norm(x, f"layers.{i}.norm2", c.hidden), i))
        x = self.op("Slice", self.norm(x, "norm", c.hidden), self.integers(-1), self.integers(2**62), self.integers(1))
        last = self.op("Transpose", table, perm=[1, 0]) if c.tied else self.weight("lm_head.weight", c.hidden, c.vocab)
        self.nodes.append(helper.make_node("MatMul", [x, last], ["logits"], name="lm_head"))
        return self.model()

    def model(self):
        c, value = self.c, helper.make_tensor_value_info
        inputs = [value("input_ids", T.INT64, ["batch", "seq"]), value("attention_mask", T.INT64, ["batch", "past + seq"]),
                  value("position_ids", T.INT64, ["batch", "seq"])]
        outputs = [value("logits", self.dtype, ["batch", 1, c.vocab])]
        for i in range(c.layers):
            for part in self.caches():
                inputs.append(value(f"past_key_values.{i}.{part}", self.dtype, ["batch", c.kv_heads, "past", c.head]))
                outputs.append(value(f"present.{i}.{part}", self.dtype, ["batch", c.kv_heads, "past + seq", c.head]))
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11, producer_name="structures")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("name", choices=sorted(CONFIGS))
    ap.add_argument("-o", required=True, type=pathlib.Path, help="the .onnx file")
    ap.add_argument("--dtype", choices=sorted(DTYPES), default="fp16")
    ap.add_argument("--layers", type=int, help="fewer than the model has")
    args = ap.parse_args()
    config = CONFIGS[args.name]
    if args.layers:
        config = dataclasses.replace(config, layers=args.layers)
    s = Structure(config, args.dtype, args.o.name + ".data")
    onnx.save(s.build(), args.o)
    print(f"{args.o}: {len(s.nodes)} nodes; {s.offset} bytes of weights are declared in {s.data}, which is not written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
