#!/usr/bin/env python3
"""Graphs that random search once found at fault, as small as they became; all forms of each must agree. See diff.py."""
import argparse
import pathlib
import sys

import numpy as np

import diff
from graphs import BF16, Case, Graph

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def slice_from_before_the_start(g):
    """Backwards from a start before the first element: ONNX clamps to the first."""
    g.add("Slice", [g.new(F32, (5, 16)), g.ints(-2, -17), g.ints(4, -2**63), g.ints(-2, -1), g.ints(1, -2)])


def slice_nothing_backwards(g):
    g.add("Slice", [g.new(F32, (0, 3), constant=False), g.ints(-1), g.ints(-2**63), g.ints(0), g.ints(-1)])


def reduce_scalar(g):
    for op in ("ReduceLogSumExp", "ReduceSumSquare", "ReduceL1"):
        g.add(op, [g.new(F32, (), constant=False), g.given(np.zeros(0, np.int64), True)], {"keepdims": 0})


def one_column(g):
    """Rows of one element in tiles of several rows."""
    g.add("Hardmax", [g.new(F32, (1, 17, 1, 8), constant=False)], {"axis": -2})


def empty_products(g):
    g.add("MatMul", [g.new(F32, (0, 4, 2), constant=False), g.new(F32, (2, 6))])
    g.add("MatMul", [g.new(F32, (3, 2), constant=False), g.new(F32, (2, 0))])
    g.add("ConvTranspose", [g.new(F32, (1, 6, 1), constant=False), g.new(F32, (6, 1, 1))], {"pads": [0, 1]})


def layer_norm_narrow(g):
    """16-bit floats are rounded between scale and bias."""
    for kind in (BF16, np.dtype(np.float16)):
        x = g.new(kind, (64, 16), -3, 3, False)
        g.add("LayerNormalization", [x, g.new(kind, (16,), -2, 2), g.new(kind, (16,), -2, 2)])


def two_results_of_one_value(g):
    x = g.new(np.dtype(np.int8), (2,), constant=False)
    g.add("Transpose", [g.add("Transpose", [x])[0]], {"perm": [0]})


def rnn(g):
    """The products' bias is one row, which the matrix unit starts from."""
    for kind in (F32, np.dtype(np.float16)):
        new = lambda *shape: g.new(kind, shape, -1, 1, True)
        x = g.new(kind, (3, 2, 9), -2, 2, False)
        g.add("RNN", [x, new(1, 3, 9), g.new(kind, (1, 3, 3), -1, 1, False), new(1, 6)], {"direction": "reverse", "hidden_size": 3}, 2)
        g.add("LSTM", [x, new(2, 32, 9), new(2, 32, 8), new(2, 64)], {"direction": "bidirectional", "hidden_size": 8}, 3)


def gemm_rows(g):
    """Products with a row added by themselves: fused into one start, but not when strict."""
    for kind in (F32, np.dtype(np.float16)):
        x = g.new(kind, (5, 40), -2, 2, False)
        g.add("Gemm", [x, g.new(kind, (40, 12), -1, 1, True), g.new(kind, (12,), -1, 1, True)])
        g.add("Relu", [g.add("Add", [g.add("MatMul", [x, g.new(kind, (40, 17), -1, 1, True)])[0], g.new(kind, (1, 17), -1, 1, True)])[0]])


def arg_of_nothing(g):
    """No place to choose: refused when that is known, else place 0."""
    for last in (0, 1):
        g.add("ArgMax", [g.new(F32, (4, 0), constant=False)], {"axis": 1, "select_last_index": last})


def log_sum_exp_of_integers(g):
    for kind in (I64, np.dtype(np.int32)):
        g.add("ReduceLogSumExp", [g.new(kind, (3, 5), constant=False)], {"keepdims": 0})


def attention_of_unknown_heads(g):
    """With symbols the default scale is known at run time alone."""
    for causal in (0, 1):
        g.add("Attention", [g.new(F32, (1, 3, s, 4), -2, 2, False) for s in (17, 33, 33)], {"is_causal": causal})


def rotary_narrow(g):
    """Rounded once, not after every product."""
    for dtype in (BF16, np.dtype(np.float16)):
        g.add("RotaryEmbedding", [g.new(dtype, (1, 2, 5, 16), constant=False), *(g.new(dtype, (1, 5, 8)) for _ in range(2))])


def scatter_by_four(g):
    """So many values per place that few rows of them fit on chip."""
    g.add("ScatterND", [g.new(np.dtype(np.int16), (8, 16, 4, 5), constant=False), g.new(I64, (1, 4), 0, 3, False),
                        g.new(np.dtype(np.int16), (1,), constant=False)], {"reduction": "mul"})


CASES = [slice_from_before_the_start, slice_nothing_backwards, reduce_scalar, one_column, empty_products, layer_norm_narrow,
         two_results_of_one_value, rnn, gemm_rows, arg_of_nothing, log_sum_exp_of_integers, attention_of_unknown_heads, rotary_narrow,
         scatter_by_four]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npuc-opt", type=pathlib.Path, required=True)
    options = parser.parse_args()
    failed = 0
    for make in CASES:
        g = Graph(np.random.default_rng(1), 23)
        make(g)
        for symbols in (True,) if make is arg_of_nothing else (False, True):
            case = Case(g.nodes, g.values, g.inputs, g.constants, g.opset, symbols)
            settings = {"npuc_opt": options.npuc_opt, "target": "ascend-910b1", "hazards": True, "threads": True, "tile": diff.SMALL_TILES[0]}
            fault, _, _ = diff.isolated(case, settings)
            if fault:
                failed += 1
                print(f"FAILED {make.__name__}{' with symbols' if symbols else ''}: {fault.kind}: {fault.text}")
    print(f"{len(CASES)} graphs, {failed} faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
