#!/usr/bin/env python3
"""Every generator on random shapes: 200 nodes of its operators (fewer of long attention), on cores of all families, under the hazard checker.

    NPUC_LIB=build/release fuzz/shapes.py --npuc-opt build/release/npuc-opt [--only NAME] [--nodes 200] [--seed 1] [--target T ...]

Results have the bits of the reference interpreter on the lowered graph: integers are exact, floats keep one order of operations. At
least half of the nodes have to run on the cores; `npuc check` tells where each runs.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import ml_dtypes
import numpy as np
import onnx

import diff
import moves
import recipes
from graphs import BF16, Case, Graph, Skip, kind_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support import call, run_cases

TARGETS = ["ascend-910b1", "mlu370-x4"]
OPSET = 23
PART = 50 # nodes of one model
LONG = {"long_keys": 4, "banded": 3} # share of the nodes: attention has 200 of its own, these take as long as ten others
CORE_TYPES = [np.dtype(np.float32), np.dtype(np.float16), BF16]


class Fresh(Graph):
    """Nodes that know nothing of each other, of types that cores compute; finite contents."""

    def old(self, test):
        return None

    def some(self, types, low=0, high=4):
        known = [t for t in types if t in CORE_TYPES] or types
        return self.new(self.pick(known), self.shape(low, high), constant=False)

    def data(self, dtype, shape, low=None, high=None):
        x = super().data(dtype, shape, low, high)
        if kind_of(np.dtype(dtype)) != "f":
            return x
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(np.isfinite(x.astype(np.float64)), x, np.asarray(0.5).astype(dtype)).astype(dtype)


def elementwise(g):
    recipes.elementwise(g.pick(["Add", "Sub", "Mul", "Div", "Max", "Min", "Exp", "Sqrt", "Tanh", "Sigmoid", "Erf", "Relu", "Equal",
                                "Less", "And", "Not", "Abs", "Neg", "Pow"]))(g)


def depthwise(g):
    dtype, channels = g.pick(CORE_TYPES), g.pick([1, 3, 8, 16, 33, 64])
    size = [g.pick([3, 5, 8, 13]) for _ in range(g.int(1, 2))]
    made = {"kernel_shape": [g.int(1, 3) for _ in size], "strides": [g.int(1, 2) for _ in size], "group": channels,
            "pads": [g.int(0, 1) for _ in range(2 * len(size))]}
    g.add("Conv", [g.new(dtype, [g.int(1, 2), channels, *size], constant=False), g.new(dtype, [channels, 1, *made["kernel_shape"]])], made)


def rotary(g):
    heads, seq, half = g.pick([1, 2, 5]), g.pick([1, 3, 17, 64]), g.pick([2, 8, 16, 32])
    dtype = g.pick(CORE_TYPES)
    x = g.new(dtype, [g.int(1, 2), heads, seq, 2 * half], constant=False)
    angles = [g.new(dtype, [x.shape[0], seq, half], constant=False) for _ in range(2)]
    g.add("RotaryEmbedding", [x, *angles], {"interleaved": g.int(0, 1)})


def softmax_attention(g):
    """Products around a softmax, as decomposed attention has them."""
    dtype, b, h = g.pick(CORE_TYPES[:2]), g.int(1, 2), g.pick([1, 2, 4])
    q, k, d = g.pick([1, 5, 16, 33]), g.pick([1, 7, 40, 300]), g.pick([8, 16, 40, 64])
    rows, keys, values = (g.new(dtype, [b, h, n, d], constant=False) for n in (q, k, k))
    turned, = g.add("Transpose", [keys], {"perm": [0, 1, 3, 2]})
    scores, = g.add("MatMul", [rows, turned])
    shares, = g.add("Softmax", [scores], {"axis": -1})
    g.add("MatMul", [shares, values])


def long_attention(g):
    """Attention over several parts of 2048 keys, with scales of its own; now and then causal."""
    dtype, h, d = g.pick(CORE_TYPES[:2]), g.int(1, 2), g.pick([16, 40])
    q, k = g.pick([1, 5, 17]), g.pick([2049, 2300, 4097])
    operands = [g.new(dtype, [1, h, n, d], constant=False) for n in (q, k, k)]
    g.add("Attention", operands, {"is_causal": g.int(0, 1), "scale": g.pick([0.05, 0.3, 1.0])})


def banded_attention(g):
    """Causal attention and sliding windows over several chunks of 256 keys, for query heads that share key heads."""
    dtype, heads, share, d = g.pick(CORE_TYPES[:2]), g.int(1, 2), g.pick([1, 2, 4]), g.pick([16, 40])
    q, k = g.pick([1, 40, 300, 700, 1100]), g.pick([300, 700, 1300])
    if g.int(0, 1):
        operands = [g.new(dtype, [1, h, n, d], constant=False) for h, n in ((heads * share, q), (heads, k), (heads, k))]
        g.add("Attention", operands, {"is_causal": 1})
        return
    rows, keys, values = (g.new(dtype, [1, heads, n, d], constant=False) for n in (q, k, k))
    turned, = g.add("Transpose", [keys], {"perm": [0, 1, 3, 2]})
    scores, = g.add("MatMul", [rows, turned])
    apart = np.arange(k) - np.arange(q)[:, None] - g.pick([0, k - q])
    keep = g.given((apart <= g.pick([0, 100])) & (apart > -g.pick([1, 200, 600])), True)
    seen, = g.add("Where", [keep, scores, g.given(np.asarray(-np.inf, scores.dtype), True)])
    shares, = g.add("Softmax", [seen], {"axis": -1})
    g.add("MatMul", [shares, values])


def behind(g, y, n):
    """Up to n elementwise operators on y: with a row, a column, one number, a whole operand, y itself."""
    for _ in range(g.int(1, n)):
        shape = g.pick([y.shape[-1:], [*y.shape[-2:-1], 1], [1], y.shape])
        kind = g.pick(["unary", "itself", "operand", "operand"])
        if kind == "unary":
            y, = g.add(g.pick(["Sigmoid", "Tanh", "Relu", "Neg"]), [y])
        else:
            y, = g.add(g.pick(["Add", "Mul"]), [y, y if kind == "itself" else g.new(y.dtype, shape)])
    return y


def product_vector(g):
    """Elementwise operators behind a product; sometimes behind two of one operand, as gate and up projections."""
    dtype = g.pick([*CORE_TYPES, np.dtype(np.int8)])
    m, n, k = g.pick([1, 3, 16, 33, 130]), g.pick([1, 5, 16, 33, 96, 300]), g.pick([1, 16, 40, 129])
    x = g.new(dtype, [*g.pick([[], [2], [2, 3]]), m, k], constant=False)
    made = []
    for _ in range(g.int(1, 2)):
        y, = g.add("MatMul" if dtype != np.int8 else "MatMulInteger", [x, g.new(dtype, [k, n], constant=True)])
        if dtype == np.int8:
            y, = g.add("Cast", [y], {"to": onnx.TensorProto.FLOAT})
        made.append(behind(g, y, 3))
    if len(made) > 1:
        behind(g, g.add("Mul", made)[0], 2)


def products_of_one(g):
    """Products of one operand with several weights, some with a bias row."""
    dtype, m, k = g.pick(CORE_TYPES), g.pick([1, 3, 33, 130]), g.pick([1, 16, 40, 129])
    x = g.new(dtype, [*g.pick([[], [2]]), m, k], constant=False)
    for _ in range(g.int(2, 4)):
        n = g.pick([5, 16, 33, 96, 300])
        y, = g.add("MatMul", [x, g.new(dtype, [k, n], constant=True)])
        if dtype == np.float32 and g.chance(0.3):
            g.add("Add", [y, g.new(dtype, [n], constant=True)])


def coded_products_of_one(g):
    """Products of one operand with weights of codes in blocks along K, some with zero points."""
    dtype, m, k, block = g.pick(CORE_TYPES[:2]), g.pick([1, 3, 33, 130]), g.pick([64, 160, 320]), g.pick([16, 32])
    code = np.dtype(g.pick([np.uint8, ml_dtypes.uint4, ml_dtypes.int4]))
    x = g.new(dtype, [*g.pick([[], [2]]), m, k], constant=False)
    low, high = (-8, 7) if code == ml_dtypes.int4 else (0, 15)
    zeros = g.chance(0.5)
    for _ in range(g.int(1, 4)):
        n = g.pick([6, 16, 48, 96, 320])
        codes, zero = (g.given(g.data(np.dtype(np.int8), s, low, high).astype(code), True) for s in ([k, n], [k // block, n]))
        scale = g.given(g.data(dtype, [k // block, n], 0.01, 0.1), True)
        w, = g.add("DequantizeLinear", [codes, scale] + ([zero] if zeros else []), {"axis": 0, "block_size": block})
        g.add("MatMul", [x, w])


def turned_cast(g):
    """Heads beside each other, narrowed: alone, in rows of all heads, before other operators, read twice."""
    b, h, s, d = g.int(1, 2), g.pick([1, 3, 9]), g.pick([1, 5, 40]), g.pick([1, 7, 16, 64])
    y, = g.add("Transpose", [g.new(np.dtype(np.float32), [b, h, s, d], constant=False)], {"perm": g.pick([[0, 2, 1, 3], [0, 2, 1, 3], [2, 0, 1, 3], [0, 1, 3, 2]])})
    rows = y
    if g.chance(0.7):
        y, = g.add("Reshape", [y, g.ints(*y.shape[:2], -1)])
    y, = g.add("Cast", [y], {"to": g.pick([onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])})
    if g.chance(0.6):
        behind(g, y, 3)
    if g.chance(0.2):
        g.add("Neg", [rows])


def resize(g):
    """Maps between convolutions: there Resize is a kernel of its own where places repeat."""
    dtype, size = g.pick(CORE_TYPES[:2]), [g.pick([1, 2, 3, 5, 8, 14, 33]) for _ in range(2)]
    channels = g.pick([1, 3, 16, 20, 70])
    x = g.new(dtype, [g.int(1, 3), g.pick([1, 4, 24]), *size], constant=False)
    y, = g.add("Conv", [x, g.new(dtype, [channels, x.shape[1], 1, 1])])
    made = {"mode": g.pick(["nearest", "linear", "linear", "cubic"]), "antialias": 0,
            "coordinate_transformation_mode": g.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"])}
    if made["mode"] == "nearest":
        made["nearest_mode"] = g.pick(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    elif g.chance(0.2):
        made[g.pick(["antialias", "exclude_outside"])] = 1
    scales = [g.pick([0.5, 1.0, 2.0, 2.0, 3.0, 4.0, 1.5, 0.75, 8.0, 2.6]) for _ in size]
    out = [max(1, int(d * s)) for d, s in zip(size, scales)]
    if g.chance(0.5) and all(d * s >= 1 for d, s in zip(size, scales)):
        y, = g.add("Resize", [y, None, g.given(np.array([1, 1, *scales], np.float32), True)], made)
    elif g.chance(0.5):
        y, = g.add("Resize", [y, None, None, g.ints(*out)], {**made, "axes": [2, 3]})
    else:
        y, = g.add("Resize", [y, None, None, g.ints(*y.shape[:2], *out)], made)
    if g.chance(0.7):
        g.add("Conv", [y, g.new(dtype, [g.pick([4, 40]), channels, 1, 1])])


def bent(g, y):
    """Relu, or PRelu with one slope or one for each channel."""
    if g.chance(0.4):
        return g.add("Relu", [y])[0]
    return g.add("PRelu", [y, g.new(y.dtype, [g.pick([1, y.shape[1]]), 1, 1], constant=True)])[0]


def bent_conv(g):
    dtype, size, channels = g.pick(CORE_TYPES[:2]), [g.pick([1, 5, 8, 13]) for _ in range(2)], g.pick([1, 3, 16, 40])
    x, outs, k = g.new(dtype, [g.int(1, 2), channels, *size], constant=False), g.pick([1, 5, 64, 70]), min(g.pick([1, 3]), *size)
    y, = g.add("Conv", [x, g.new(dtype, [outs, channels, k, k])], {"strides": [g.int(1, 2)] * 2})
    bent(g, y)


def scaled_conv(g):
    """A convolution of bytes whose sums become numbers: factors of the channels or one, another map, codes of the result."""
    channels, size, outs = g.pick([1, 3, 16, 40]), [g.pick([1, 5, 8, 13]) for _ in range(2)], g.pick([1, 5, 16, 64, 70])
    kernel = [min(g.pick([1, 1, 3]), s) for s in size]
    x, w = g.new(np.dtype(np.int8), [g.int(1, 2), channels, *size], constant=False), g.new(np.dtype(np.int8), [outs, channels, *kernel], constant=True)
    y, = g.add("ConvInteger", [x, w], {"pads": [g.int(0, 1) for _ in range(4)], "strides": [g.int(1, 2) for _ in range(2)]})
    y, = g.add("Cast", [y], {"to": onnx.TensorProto.FLOAT})
    factors = np.full([outs, 1, 1], 0.0078, np.float32) if g.chance(0.5) else np.linspace(0.001, 0.02, outs, dtype=np.float32).reshape(outs, 1, 1)
    y, = g.add("Mul", [y, g.given(factors, True)])
    y, = g.add("Add", [y, g.new(np.dtype(np.float32), [outs, 1, 1], constant=True)])
    if g.chance(0.6):
        y, = g.add("Cast", [y], {"to": onnx.TensorProto.FLOAT16})
    if g.chance(0.7):
        y = bent(g, y)
    if g.chance(0.5):
        other = g.new(y.dtype, y.shape, constant=False)
        y, = g.add("Add", [y, other] if g.chance(0.5) else [other, y])
        if g.chance(0.5):
            y, = g.add("Relu", [y])
    if g.chance(0.6):
        y, = g.add("Mul", [y, g.given(np.asarray(g.pick([0.5, 8.0, 31.7]), y.dtype), True)])
        y, = g.add("Round", [y])
        y, = g.add("Clip", [y, g.given(np.asarray(g.pick([-128, -127, 0]), y.dtype), True), g.given(np.asarray(g.pick([127, 127, 100]), y.dtype), True)])
        y, = g.add("Cast", [y], {"to": onnx.TensorProto.INT8})
        if g.chance(0.5): # between convolutions maps lie in blocks
            g.add("ConvInteger", [y, g.new(np.dtype(np.int8), [32, outs, 1, 1], constant=True)])


def volume(g):
    """Convolutions along three axes over channels that fill a row of the units or do not: strides, dilations, padding on any side, groups."""
    dtype, group = g.pick([*CORE_TYPES[:2], np.dtype(np.int8)]), g.pick([1, 1, 1, 2])
    channels, outs = g.pick([3, 16, 24, 64, 70]), g.pick([1, 5, 16, 66])
    size = [g.pick([1, 2, 4]), g.pick([1, 3, 7, 14]), g.pick([1, 5, 7, 28])]
    images = g.pick([1, 2, 2, 9]) # nine: two for a cluster
    x = g.new(dtype, [images, group * channels, *size], constant=False)
    made = {"kernel_shape": [g.int(2, 3), g.int(1, 3), g.int(1, 3)], "strides": [g.int(1, 2) for _ in size], "group": group,
            "dilations": [g.pick([1, 1, 2]) for _ in size], "pads": [g.int(0, 2) for _ in size * 2]}
    if not recipes.window_fits(x, made):
        raise Skip()
    w = g.new(dtype, [group * outs, channels, *made["kernel_shape"]], constant=True)
    if dtype == np.int8:
        g.add("ConvInteger", [x, w], made)
    else:
        y, = g.add("Conv", [x, w, *g.pick([[], [g.new(dtype, [group * outs])]])], made)
        if g.chance(0.5):
            g.add("Relu", [y])


def pool(g):
    recipes.pool(g)
    made = {a.name: onnx.helper.get_attribute_value(a) for a in g.nodes[-1].attribute}
    if "kernel_shape" in made and not recipes.window_fits(g.values[g.nodes[-1].input[0]], made):
        g.nodes.pop()


def pool_behind(g):
    """Pooling behind a convolution, whose result lies as lines of channels."""
    dtype, size, channels = g.pick(CORE_TYPES), [g.pick([2, 3, 7, 9, 14, 21]) for _ in range(2)], g.pick([1, 3, 16, 40, 300])
    x = g.new(dtype, [g.int(1, 3), g.pick([4, 24]), *size], constant=False)
    y, = g.add("Conv", [x, g.new(dtype, [channels, x.shape[1], 3, 3])], {"pads": [1, 1, 1, 1]})
    op = g.pick(["GlobalAveragePool", "GlobalMaxPool", "MaxPool"])
    g.add(op, [y], {} if op[0] == "G" else {"kernel_shape": [2, 2], "strides": [g.int(1, 2)] * 2})


GENERATORS = {"matmul": [recipes.matmul, recipes.gemm], "conv": [recipes.conv], "scaled": [scaled_conv, bent_conv], "volume": [volume],
              "depthwise": [depthwise],
              "attention": [softmax_attention, moves.attention], "long_keys": [long_attention], "banded": [banded_attention], "rotary": [rotary], "turn": [moves.transpose],
              "move": [moves.concat, moves.split, moves.slice_, moves.spread, moves.blocks], "gather": [moves.gather],
              "index": [moves.scatter], "select": [recipes.where, moves.trilu], "pad": [moves.pad], "pool": [pool, pool_behind], "resize": [resize],
              "scan": [recipes.cumulative], "sort": [recipes.topk], "cast": [recipes.cast, turned_cast], "quant": [moves.quantise],
              "integer": [moves.integer], "vector": [elementwise, recipes.softmax],
              "product": [product_vector, products_of_one], "coded": [coded_products_of_one], "reduce": [recipes.reduction, recipes.arg],
              "norm": [recipes.norm]}


def draw(seed, name, nodes):
    """A case of at least so many nodes, each of one of the generator's recipes."""
    g = Fresh(np.random.default_rng([seed, *name.encode()]), OPSET)
    for _ in range(20 * nodes):
        if len(g.nodes) >= nodes:
            break
        try:
            g.pick(GENERATORS[name])(g)
        except Skip:
            pass
    return Case(g.nodes, g.values, g.inputs, g.constants, OPSET)


def check_part(npuc_opt, name, target, case):
    """Raises AssertionError on other bits; returns (nodes on the cores, nodes that compute)."""
    import npuc
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = folder / "m.onnx"
        model.write_bytes(case.model(case.sinks()).SerializeToString())
        got = diff.execute(npuc, str(model), case.sinks(), case.inputs, {"target": target}, check_hazards=True)
        diff.compare("reference", got, diff.reference(npuc_opt, model, case, folder, target))
        said = call([npuc_opt.with_name("npuc"), "check", model, "--target", target, "--json"]) # exit 1: some are on the host
        report = json.loads(said.stdout)["targets"][0]
        return report["npu"], report["npu"] + report["host"]


def run(npuc_opt, name, target, nodes, seed):
    on_cores, all_nodes = 0, 0
    for part in range(-(-nodes // PART)):
        try:
            n, m = check_part(npuc_opt, name, target, draw(seed + part, name, min(PART, nodes - part * PART)))
        except Exception as e: # pylint: disable=broad-except
            raise AssertionError(f"--seed {seed + part}: {e}") from None
        on_cores, all_nodes = on_cores + n, all_nodes + m
    assert 2 * on_cores >= all_nodes, f"only {on_cores} of {all_nodes} nodes run on the cores"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--npuc-opt", type=pathlib.Path, default=ROOT / "build/release/npuc-opt")
    p.add_argument("--only", default="", help="generators whose name contains this")
    p.add_argument("--nodes", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--target", action="append")
    o = p.parse_args()
    names = [n for n in GENERATORS if o.only in n]
    cases = [(f"{n} on {t}", (n, t)) for t in o.target or TARGETS for n in names]
    return run_cases(cases, lambda c: run(o.npuc_opt, c[0], c[1], -(-o.nodes // LONG.get(c[0], 1)), o.seed))


if __name__ == "__main__":
    sys.exit(main())
