#!/usr/bin/env python3
"""Decoder graphs of published mixtures of experts at full size, without their weights: for npuc estimate, check and inspect.

    python bench/structures/moe.py qwen3-30b-a3b -o qwen3.onnx
    python bench/structures/moe.py deepseek-v3 --experts int4 -o deepseek.onnx
    npuc estimate qwen3.onnx -D batch=1 -D seq=1 -D past=1024 --target ascend-910b1

What is not said here is as in dense.py. Experts of Qwen3 and Mixtral are MoE (int4: QMoE, blocks of 32) of com.microsoft, which take the
softmax of the router's logits; DeepSeek's routing (sigmoid, a bias for the choice alone, groups) is spelled out, its experts are rows of
chosen matrices (Gather and batched products) or, with int4, QMoE with the weights of the routes. DeepSeek's attention is in its absorbed
form: queries are brought into the space of the latent, one head of which is the cache for all. Multi-token prediction is left out.
"""
import argparse
import dataclasses
import math
import pathlib
import sys

import onnx
from onnx import TensorProto as T
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from dense import DTYPES, Config, Structure


@dataclasses.dataclass(frozen=True)
class Experts(Config):
    """num_experts, num_experts_per_tok, moe_intermediate_size; shared: experts that every token takes; dense: first_k_dense_replace;
    groups, chosen_groups: n_group, topk_group; scaling: routed_scaling_factor; latent attention: q_lora_rank, kv_lora_rank and the
    sizes of a head's parts with and without rotation and of its value; yarn: factor on the scale of scores."""

    experts: int = 0
    chosen: int = 0
    width: int = 0
    shared: int = 0
    dense: int = 0
    groups: int = 0
    chosen_groups: int = 0
    scaling: float = 1.0
    q_rank: int = 0
    kv_rank: int = 0
    rope: int = 0
    nope: int = 0
    value: int = 0
    yarn: float = 1.0


DEEPSEEK = Experts(7168, 61, 128, 1, 576, 18432, 129280, 163840, experts=256, chosen=8, width=2048, shared=1, dense=3, groups=8, chosen_groups=4,
                   scaling=2.5, q_rank=1536, kv_rank=512, rope=64, nope=128, value=128, yarn=(0.1 * math.log(40) + 1) ** 2)
CONFIGS = {
    "qwen3-30b-a3b": Experts(2048, 48, 32, 4, 128, 6144, 151936, 40960, qk_norm=True, experts=128, chosen=8, width=768),
    "mixtral-8x7b": Experts(4096, 32, 32, 8, 128, 14336, 32000, 32768, experts=8, chosen=2, width=14336),
    "deepseek-v3": DEEPSEEK,
}


class Mixture(Structure):
    def __init__(self, config, dtype, data, bits):
        super().__init__(config, dtype, data)
        self.bits = bits

    def tensor(self, name, dtype, size, *dims):
        """As weight(), of another type: `size` bytes an element."""
        own = self.dtype, self.size
        self.dtype, self.size = dtype, size
        self.weight(name, *dims)
        self.dtype, self.size = own
        return name

    def scalar(self, value):
        self.count += 1
        name = f"scalar_{self.count}"
        self.weights.append(helper.make_tensor(name, self.dtype, [], [value]))
        return name

    # ---- experts

    def gated(self, x, at, width):
        gate, up = (self.product(x, f"{at}.{n}", self.c.hidden, width) for n in ("gate", "up"))
        return self.product(self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up), f"{at}.down", width, self.c.hidden)

    def codes(self, name, rows, columns):
        """Codes of 4 bits in blocks of 32 and their scales, as QMoE wants them."""
        e = self.c.experts
        return [self.tensor(f"{name}.codes", T.UINT8, 1, e, rows, columns // 2), self.weight(f"{name}.scales", e, rows, columns // 32)]

    def operator(self, x, logits, at, routes=""):
        """All routed experts as one operator; routes: the weights that routing gives, else the softmax of the chosen logits."""
        c = self.c
        attributes = {"k": c.chosen, "normalize_routing_weights": 1, "activation_type": "swiglu", "swiglu_fusion": 2}
        if self.bits == 4:
            attributes |= {"expert_weight_bits": 4, "block_size": 32, "weights_prepacked": 0}
            inputs = [x, logits, *self.codes(f"{at}.fc1", 2 * c.width, c.hidden), "", *self.codes(f"{at}.fc2", c.hidden, c.width)]
            inputs += [""] * 7 + [routes] if routes else []
        else:
            inputs = [x, logits, self.weight(f"{at}.fc1", c.experts, 2 * c.width, c.hidden), "",
                      self.weight(f"{at}.fc2", c.experts, c.hidden, c.width)]
        self.count += 1
        y = f"experts_{self.count}"
        self.nodes.append(helper.make_node("MoE" if self.bits == 16 else "QMoE", inputs, [y], name=at, domain="com.microsoft", **attributes))
        return y

    def rows(self, x, index, weight, at):
        """One row for each token and chosen expert: [tokens, hidden], [tokens, chosen] twice -> [tokens, hidden]"""
        c = self.c
        wide = self.op("Expand", self.op("Unsqueeze", x, self.integers(1)), self.integers(1, c.chosen, 1))
        each = self.op("Unsqueeze", self.op("Reshape", wide, self.integers(-1, c.hidden)), self.integers(-1))
        flat = self.op("Reshape", index, self.integers(-1))
        h = self.op("MatMul", self.op("Gather", self.weight(f"{at}.fc1", c.experts, 2 * c.width, c.hidden), flat), each)
        gate, up = self.op("Split", self.op("Squeeze", h, self.integers(-1)), outputs=2, axis=1, num_outputs=2)
        h = self.op("Unsqueeze", self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up), self.integers(-1))
        y = self.op("MatMul", self.op("Gather", self.weight(f"{at}.fc2", c.experts, c.hidden, c.width), flat), h)
        y = self.op("Reshape", self.op("Squeeze", y, self.integers(-1)), self.integers(-1, c.chosen, c.hidden))
        return self.op("ReduceSum", self.op("Mul", y, self.op("Unsqueeze", weight, self.integers(-1))), self.integers(1), keepdims=0)

    def limited(self, logits, at):
        """DeepSeek's routing: the scores and, for the choice, the scores with a bias in the best groups alone."""
        c = self.c
        scores = self.op("Sigmoid", logits)
        biased = self.op("Add", scores, self.weight(f"{at}.bias", c.experts))
        parts = self.op("Reshape", biased, self.integers(-1, c.groups, c.experts // c.groups))
        best, _ = self.op("TopK", parts, self.integers(2), outputs=2)
        _, groups = self.op("TopK", self.op("ReduceSum", best, self.integers(-1), keepdims=0), self.integers(c.chosen_groups), outputs=2)
        numbers = self.integers(*range(c.groups))
        hit = self.op("Equal", self.op("Unsqueeze", groups, self.integers(1)), self.op("Unsqueeze", numbers, self.integers(0, 2)))
        kept = self.op("ReduceMax", self.op("Cast", hit, to=T.INT32), self.integers(-1), keepdims=1)
        left = self.op("Where", self.op("Cast", kept, to=T.BOOL), parts, self.scalar(-65504.0))
        return scores, self.op("Reshape", left, self.integers(-1, c.experts))

    def routed(self, x, at):
        c = self.c
        logits = self.product(x, f"{at}.router", c.hidden, c.experts)
        if not c.groups:
            return self.operator(x, logits, at)
        scores, choice = self.limited(logits, at)
        if self.bits == 4:
            return self.op("Mul", self.operator(x, choice, at, scores), self.scalar(c.scaling))
        _, index = self.op("TopK", choice, self.integers(c.chosen), outputs=2)
        weight = self.op("GatherElements", scores, index, axis=1)
        weight = self.op("Mul", self.op("Div", weight, self.op("ReduceSum", weight, self.integers(-1))), self.scalar(c.scaling))
        return self.rows(x, index, weight, at)

    def mlp(self, x, i):
        c, at = self.c, f"layers.{i}.mlp"
        if i < c.dense:
            return self.gated(x, at, c.mlp)
        flat = self.op("Reshape", x, self.integers(-1, c.hidden))
        y = self.op("Reshape", self.routed(flat, at), self.op("Shape", x))
        return self.op("Add", y, self.gated(x, f"{at}.shared", c.shared * c.width)) if c.shared else y

    # ---- latent attention

    def part(self, x, start, end, axis=-1):
        return self.op("Slice", x, self.integers(start), self.integers(end), self.integers(axis))

    def latent_query(self, x, at):
        """[batch, heads, seq, kv_rank + rope]"""
        c = self.c
        q = self.product(self.norm(self.product(x, f"{at}.q_a", c.hidden, c.q_rank), f"{at}.q_norm", c.q_rank), f"{at}.q_b", c.q_rank,
                         c.heads * (c.nope + c.rope))
        q = self.op("Transpose", self.op("Reshape", q, self.integers(0, 0, c.heads, c.nope + c.rope)), perm=[0, 2, 1, 3])
        near = self.op("MatMul", self.part(q, 0, c.nope), self.weight(f"{at}.k_up.weight", c.heads, c.nope, c.kv_rank))
        turned = self.op("RotaryEmbedding", self.part(q, c.nope, c.nope + c.rope), "cos", "sin", "position_ids", interleaved=1)
        return self.op("Concat", near, turned, axis=-1)

    def attention(self, x, i, mask):
        c, at = self.c, f"layers.{i}.attention"
        if not c.kv_rank:
            return super().attention(x, i, mask)
        kv = self.product(x, f"{at}.kv_a", c.hidden, c.kv_rank + c.rope)
        latent = self.norm(self.part(kv, 0, c.kv_rank), f"{at}.kv_norm", c.kv_rank)
        rope = self.op("RotaryEmbedding", self.op("Unsqueeze", self.part(kv, c.kv_rank, c.kv_rank + c.rope), self.integers(1)), "cos", "sin",
                       "position_ids", interleaved=1)
        new = self.op("Concat", self.op("Unsqueeze", latent, self.integers(1)), rope, axis=-1)
        key = f"present.{i}.key"
        self.nodes.append(helper.make_node("Concat", [f"past_key_values.{i}.key", new], [key], name=f"{at}.cache", axis=2))
        y = self.op("Attention", self.latent_query(x, at), key, self.part(key, 0, c.kv_rank), mask, scale=c.yarn * (c.nope + c.rope) ** -0.5)
        y = self.op("MatMul", y, self.weight(f"{at}.v_up.weight", c.heads, c.kv_rank, c.value))
        flat = self.op("Reshape", self.op("Transpose", y, perm=[0, 2, 1, 3]), self.integers(0, 0, c.heads * c.value))
        return self.product(flat, f"{at}.o", c.heads * c.value, c.hidden)

    def tables(self):
        c = self.c
        half = (c.rope or c.head) // 2
        self.weight("cos", c.positions, half), self.weight("sin", c.positions, half)

    def caches(self):
        return ("key",) if self.c.kv_rank else ("key", "value")

    def model(self):
        model = super().model()
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("name", choices=sorted(CONFIGS))
    ap.add_argument("-o", required=True, type=pathlib.Path, help="the .onnx file")
    ap.add_argument("--dtype", choices=sorted(DTYPES), default="fp16")
    ap.add_argument("--experts", choices=["float", "int4"], default="float", help="how the routed experts are stored")
    ap.add_argument("--layers", type=int, help="fewer than the model has")
    args = ap.parse_args()
    config = CONFIGS[args.name]
    if args.layers:
        config = dataclasses.replace(config, layers=args.layers)
    s = Mixture(config, args.dtype, args.o.name + ".data", 4 if args.experts == "int4" else 16)
    onnx.save(s.build(), args.o)
    print(f"{args.o}: {len(s.nodes)} nodes; {s.offset} bytes of weights are declared in {s.data}, which is not written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
