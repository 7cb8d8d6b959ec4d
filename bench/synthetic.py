#!/usr/bin/env python3
"""A decoder of a known size with weights that mean nothing, in 16-bit floats: for memory, compile time and host speed at full size.

    python bench/synthetic.py llama3-8b DIR                # weights are holes of a sparse file: no disk space, all zeros
    python bench/synthetic.py qwen3-8b DIR --random 7      # pseudo-random, 16 GB of disk space
    npuc compile DIR/model.onnx --target ascend-910b1 --kv-capacity 512 -o DIR/model.plan
    npuc generate DIR/model.plan --tokens 1,2,3 --new 2 --mode data --json

The graph has the operators of onnxruntime's generation exports (GroupQueryAttention, SimplifiedLayerNormalization).
"""
import argparse, pathlib

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h

# layers, width, heads, key heads, head size, inner width, vocabulary, rotary base, norms of queries and keys
SIZES = {
    "llama3-8b": (32, 4096, 32, 8, 128, 14336, 128256, 500000.0, False),
    "qwen3-8b": (36, 4096, 32, 8, 128, 12288, 151936, 1000000.0, True),
    "small": (2, 256, 4, 2, 64, 512, 1000, 10000.0, True),
}
CONTEXT, MICROSOFT = 4096, "com.microsoft"


class Model:
    def __init__(self, args):
        self.args, self.nodes, self.weights, self.large, self.at = args, [], [], [], 0

    def op(self, kind, inputs, name, outputs=1, domain="", **attributes):
        names = [name] + [f"{name}.{i}" for i in range(1, outputs)]
        self.nodes.append(h.make_node(kind, inputs, names, name=name, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def small(self, name, array):
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name, *dims):
        """Bytes of the data file, from a page on."""
        w = T(name=name, data_type=T.FLOAT16, dims=dims, data_location=T.EXTERNAL)
        size = 2 * int(np.prod(dims))
        for key, value in (("location", "model.onnx.data"), ("offset", self.at), ("length", size)):
            w.external_data.add(key=key, value=str(value))
        self.weights.append(w)
        self.large.append((self.at, int(np.prod(dims)), dims[0]))
        self.at += (size + 4095) // 4096 * 4096
        return name

    def norm(self, x, name, width):
        return self.op("SimplifiedLayerNormalization", [x, self.small(f"{name}.scale", np.ones(width, np.float16))], name, axis=-1, epsilon=1e-5)

    def linear(self, x, name, k, n):
        return self.op("MatMul", [x, self.weight(f"{name}.weight", k, n)], name)

    def head_norm(self, x, name, heads, size):
        x = self.op("Reshape", [x, self.small(f"{name}.split", np.array([0, 0, heads, size]))], f"{name}.heads")
        x = self.norm(x, f"{name}.norm", size)
        return self.op("Reshape", [x, self.small(f"{name}.join", np.array([0, 0, heads * size]))], f"{name}.rows")

    def layer(self, x, i, size):
        _, width, heads, keys, head, inner, _, _, norms = size
        p = f"l{i}."
        y = self.norm(x, p + "norm1", width)
        q, k, v = (self.linear(y, p + s, width, n * head) for s, n in (("q", heads), ("k", keys), ("v", keys)))
        if norms:
            q, k = self.head_norm(q, p + "q_norm", heads, head), self.head_norm(k, p + "k_norm", keys, head)
        past = [f"past_key_values.{i}.{s}" for s in ("key", "value")]
        attention = h.make_node("GroupQueryAttention", [q, k, v, *past, "seqlens", "total", "cos", "sin"],
                                [p + "attention", f"present.{i}.key", f"present.{i}.value"], name=p + "attention", domain=MICROSOFT,
                                num_heads=heads, kv_num_heads=keys, do_rotary=1)
        self.nodes.append(attention)
        x = self.op("Add", [x, self.linear(p + "attention", p + "o", heads * head, width)], p + "sum1")
        y = self.norm(x, p + "norm2", width)
        gate, up = self.linear(y, p + "gate", width, inner), self.linear(y, p + "up", width, inner)
        y = self.op("Mul", [gate, self.op("Sigmoid", [gate], p + "sigmoid")], p + "silu")
        return self.op("Add", [x, self.linear(self.op("Mul", [y, up], p + "inner"), p + "down", inner, width)], p + "sum2")

    def build(self, size):
        layers, width, _, keys, head, _, vocabulary, base, _ = size
        angle = np.outer(np.arange(CONTEXT), base ** -(np.arange(head // 2) * 2 / head))
        self.small("cos", np.cos(angle).astype(np.float16)), self.small("sin", np.sin(angle).astype(np.float16))
        lengths = self.op("ReduceSum", ["attention_mask", self.small("axis", np.array([1]))], "lengths", keepdims=1)
        self.op("Cast", [self.op("Sub", [lengths, self.small("one", np.array([1]))], "last")], "seqlens", to=T.INT32)
        shape = self.op("Shape", ["attention_mask"], "mask_shape")
        self.op("Cast", [self.op("Gather", [shape, self.small("second", np.array(1))], "columns", axis=0)], "total", to=T.INT32)
        x = self.op("Gather", [self.weight("embed.weight", vocabulary, width), "input_ids"], "embed")
        for i in range(layers):
            x = self.layer(x, i, size)
        self.nodes.append(h.make_node("MatMul", [self.norm(x, "norm", width), self.weight("head.weight", width, vocabulary)], ["logits"], name="logits"))
        cache = [f"{i}.{s}" for i in range(layers) for s in ("key", "value")]
        inputs = [h.make_tensor_value_info("input_ids", T.INT64, ["batch", "sequence"]),
                  h.make_tensor_value_info("attention_mask", T.INT64, ["batch", "total_sequence"])]
        inputs += [h.make_tensor_value_info(f"past_key_values.{c}", T.FLOAT16, ["batch", keys, "past", head]) for c in cache]
        outputs = [h.make_tensor_value_info("logits", T.FLOAT16, ["batch", "sequence", vocabulary])]
        outputs += [h.make_tensor_value_info(f"present.{c}", T.FLOAT16, ["batch", keys, "total_sequence", head]) for c in cache]
        graph = h.make_graph(self.nodes, self.args.size, inputs, outputs, self.weights)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 18), h.make_opsetid(MICROSOFT, 1)], ir_version=10)

    def write_data(self, path):
        with open(path, "wb") as f:
            f.truncate(self.at)
            if self.args.random is None:
                return
            r = np.random.default_rng(self.args.random)
            for at, n, rows in self.large:
                f.seek(at)
                for done in range(0, n, 1 << 24):
                    part = r.standard_normal(min(1 << 24, n - done), np.float32) * np.float32(rows ** -0.5)
                    f.write(part.astype(np.float16).tobytes())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("size", choices=sorted(SIZES))
    ap.add_argument("folder", type=pathlib.Path)
    ap.add_argument("--random", type=int, metavar="SEED")
    args = ap.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model = Model(args)
    onnx.save(model.build(SIZES[args.size]), args.folder / "model.onnx")
    model.write_data(args.folder / "model.onnx.data")
    print(f"{args.folder / 'model.onnx'}: {model.at / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
