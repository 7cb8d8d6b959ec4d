#!/usr/bin/env python3
"""The same model from several exporters gives the same kernels: the lists of kernels of a decoder layer, as npuc inspect's steps
have them, for each family of fixtures. What differs has a reason (docs/design.md, Exporters) and a line in DIFFERENCES.

    check_exporters.py --npuc NPUC FOLDER
"""
import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

# A layer of the optimum export in canonical form: operators in the order in which they run, kernels by their kind.
# What rotary embeddings of query and key and the two appends need is there at once, so that they are one launch.
DECODER = ["products", "RotaryEmbedding+CacheAppend", "attention", "MatMul", "AddRmsNorm", "gate", "MatMul", "AddRmsNorm"]
# A mixture of experts: attention as above, then routing, rows in the order of experts, their products, the weighted sum.
EXPERTS = ["products", "RotaryEmbedding+CacheAppend", "attention", "MatMul", "AddRmsNorm", "MatMul", "Softmax", "TopK",
           "weights+order", "rows", "experts", "SwiGlu", "experts", "rows", "weigh", "ReduceSum", "AddRmsNorm"]
NORMS = "RMSNormalization+CacheAppend" # of query and key, beside which the values are appended
# What an exporter's graph has beside it per layer: the fixture's name holds the key. Nothing else may differ.
DIFFERENCES = {
    "optimum": {"Mul"},        # scales the query beside the product: a rounding of the graph's own
    "dynamo-op18": {"Mul"},
    "dynamo-op20": {"Mul"},
    "tf5": {"Split"},          # one product for gate and up, whose columns are then parted
    "dynamo-op22": {"Mul"},
    "torchscript": {"Mul"},
    "genai": {"Split"},        # one product for query, key and value, whose columns are then parted
    "mobius": {"Transpose"},   # the query is embedded as [batch, seq, heads * size] and turned for attention
}
FAMILIES = {
    "llama": ["llama-optimum-op14", "llama-optimum-op18", "llama-dynamo-op18", "llama-dynamo-op20-noopt", "llama-dynamo-op23",
              "llama-genai-fp32", "llama-hand-op23", "llama-hand-static24", "llama-mobius", "llama-torchscript-op17"],
    "qwen2": ["qwen2-optimum", "qwen2-dynamo-op22", "qwen2-genai-fp32"],
    "qwen3": ["qwen3-optimum", "qwen3-dynamo-op23", "qwen3-genai-fp32"],
    "qwen3moe": ["qwen3moe-optimum", "qwen3moe-dynamo-op20-tf5"],
    "mixtral": ["mixtral-mobius"],
}
MIXTURES = {"qwen3moe", "mixtral"}
KINDS = ((r".*\+GroupOrder", r"vector\+group_order", "weights+order"), (r".*", r"attention", "attention"),
         (r"Gather", r"gather_rows", "rows"), (r"GroupedMatMul", r"matmul_grouped", "experts"),
         (r"Gemm", r"matmul", "MatMul"), (r"matmul_vector", r"matmul", "gate"), (r"matmul_group|matmul_epilogue", r"matmul", "products"))


def kind(step):
    for op, kernel, name in KINDS:
        if re.fullmatch(op, step["op"]) and re.match(kernel, step["kernel"] or ""):
            return name
    return step["op"]


def last_layer(npuc, model):
    """Kinds of the last decoder layer's steps in a decode step: behind the norm that ends the layer before."""
    report = json.loads(support.must([npuc, "estimate", model, "--precision", "fp32", "--context", "12", "--json"]))
    steps = [kind(s) for s in report["ascend-910b1"]["decode"]["steps"]]
    norms = [i for i, s in enumerate(steps) if s == "AddRmsNorm"]
    layer = steps[norms[-3] + 1:norms[-1] + 1]
    layer = ["weigh" if s == "Mul" and layer[i + 1:i + 2] == ["ReduceSum"] else s for i, s in enumerate(layer)]
    layer = [s for i, s in enumerate(layer) if s != "experts" or layer[i - 1:i] != ["experts"]] # gate and up: one product or two
    return ["products" if i == 0 else s for i, s in enumerate(layer)] # packed or three beside each other: one launch


def canonical(layer, extra):
    """Without norms of query and key, and without what the exporter adds."""
    left, out = dict.fromkeys(extra, 0), []
    for s in layer:
        if s in extra and (s != "Transpose" or out[-1:] != ["attention"]):
            left[s] += 1
        elif s != NORMS:
            out.append(s)
    return out, left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True, type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    family = {n: f for f, names in FAMILIES.items() for n in names}

    def check(name):
        want = EXPERTS if family[name] in MIXTURES else DECODER
        layer = last_layer(options.npuc, options.folder / name / "model.onnx")
        extra = set().union(*(v for k, v in DIFFERENCES.items() if k in name))
        got, left = canonical(layer, extra)
        assert got == want, f"{got}, expected {want}"
        assert all(left.values()), f"{[k for k, n in left.items() if n == 0]} is gone: take it out of DIFFERENCES"
        norms = layer.count(NORMS)
        assert norms == name.startswith("qwen3"), f"{norms} launches of the norms of query and key"

    return support.run_cases([(n, n) for names in FAMILIES.values() for n in names], check)


if __name__ == "__main__":
    sys.exit(main())
