#!/usr/bin/env python3
"""Products of small floats with block scales (MX): random models, on the cores, in the reference interpreter and in numpy, the same bits.

    check_scaled.py --npuc NPUC --npuc-opt NPUC_OPT [--cases N] [--first SEED]

A model is DequantizeLinear of both operands and a product. On the cores it must be one product of codes; the interpreter runs the file as it is;
numpy multiplies and adds in the order of docs/design.md, with sums that double precision holds exactly before they are rounded to f32.
"""
import argparse
import pathlib
import sys
import tempfile

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support import must, run_cases

CODES = {T.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn, T.FLOAT8E5M2: ml_dtypes.float8_e5m2, T.FLOAT4E2M1: ml_dtypes.float4_e2m1fn}
RESULTS = {T.FLOAT: np.float32, T.FLOAT16: np.float16, T.BFLOAT16: ml_dtypes.bfloat16}
TILES = [None, "m=16,n=16,k=32", "m=32,n=64,k=64", "m=64,n=128,k=96"]


def pack(kind, values):
    """TensorProto of values that the type holds exactly."""
    coded = values.astype(CODES[kind])
    raw = coded.view(np.uint8).reshape(-1)
    if kind == T.FLOAT4E2M1:
        raw = np.append(raw, [0] * (raw.size % 2)).astype(np.uint8)
        raw = raw[::2] & 15 | raw[1::2] << 4
    return helper.make_tensor("", kind, values.shape, raw.tobytes(), raw=True), coded.astype(np.float32)


class Case:
    """One random model with its operands."""
    target = "ascend-950pr"

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        pick = lambda *of: of[int(rng.integers(len(of)))]
        self.plain = rng.random() < 0.15 # Casts of 8-bit floats, without scales
        four = not self.plain and rng.random() < 0.4
        self.kinds = [T.FLOAT4E2M1] * 2 if four else [pick(T.FLOAT8E4M3FN, T.FLOAT8E5M2) for _ in range(2)]
        if self.plain:
            self.kinds[1] = self.kinds[0]
        self.type = pick(*RESULTS)
        self.m, self.n = (int(rng.integers(1, 75)) for _ in range(2))
        self.k = int(rng.integers(1, 260)) if self.plain else 32 * int(rng.integers(1, 12))
        self.op = pick("MatMul", "Gemm")
        self.trans = [self.op == "Gemm" and rng.random() < 0.5 for _ in range(2)]
        if four: # rows of codes begin with a byte
            self.m += self.m % 2 if self.trans[0] else 0
            self.n += self.n % 2 if not self.trans[1] else 0
        self.batch = int(rng.integers(1, 4)) if self.op == "MatMul" and rng.random() < 0.4 else 0
        self.batch_b = self.batch and rng.random() < 0.5
        self.symbolic = rng.random() < 0.3 and not self.batch and not self.trans[0]
        self.constant = rng.random() < 0.4
        self.bias = self.op == "Gemm" and rng.random() < 0.5
        self.tile = pick(*TILES)
        self.operands(rng)

    def operands(self, rng):
        self.files, self.values = {}, []
        for i, name in enumerate("ab"):
            shape = [self.m, self.k] if i == 0 else [self.k, self.n]
            if self.trans[i]:
                shape = shape[::-1]
            if self.batch and (i == 0 or self.batch_b):
                shape = [self.batch, *shape]
            codes = rng.choice([0, 0.5, 1, 1.5, 2, 3, 4, 6], shape) if self.kinds[i] == T.FLOAT4E2M1 else \
                rng.integers(-15, 16, shape) * 2.0 ** rng.integers(-4, 3, shape)
            codes = codes * rng.choice([-1, 1], shape)
            codes = codes.astype(CODES[self.kinds[i]]).astype(np.float64)
            self.files[name], wide = pack(self.kinds[i], codes)
            axis = len(shape) - (1 if self.trans[i] == (i == 1) else 2)
            if not self.plain:
                of = [d // 32 if j == axis else d for j, d in enumerate(shape)]
                scale = rng.integers(121, 133, of).astype(np.uint8)
                self.files[name + "_scale"] = helper.make_tensor("", T.FLOAT8E8M0, of, scale.tobytes(), raw=True)
                wide = wide * np.repeat(2.0 ** (scale.astype(np.float32) - 127), 32, axis)
            self.values.append(np.swapaxes(wide, -1, -2) if self.trans[i] else wide)
        self.start = rng.integers(-8, 9, self.n).astype(RESULTS[self.type])

    def model(self):
        inputs, constants, nodes, wide = [], [], [], []
        for i, name in enumerate("ab"):
            kind, shape = self.kinds[i], list(self.files[name].dims)
            axis = len(shape) - (1 if self.trans[i] == (i == 1) else 2)
            for file in (name, name + "_scale"):
                if file not in self.files:
                    continue
                tensor = self.files[file]
                if i == 1 and self.constant:
                    copy = onnx.TensorProto()
                    copy.CopyFrom(tensor)
                    copy.name = file
                    constants.append(copy)
                else:
                    dims = ["rows" if self.symbolic and i == 0 and d == 0 else v for d, v in enumerate(tensor.dims)]
                    inputs.append(helper.make_tensor_value_info(file, tensor.data_type, dims))
            nodes.append(helper.make_node("Cast", [name], [name + "w"], to=self.type) if self.plain else
                         helper.make_node("DequantizeLinear", [name, name + "_scale"], [name + "w"], axis=axis, block_size=32, output_dtype=self.type))
            wide.append(name + "w")
        if self.bias:
            constants.append(helper.make_tensor("c", self.type, [self.n], self.start.tobytes(), raw=True))
            wide.append("c")
        attributes = {"transA": int(self.trans[0]), "transB": int(self.trans[1])} if self.op == "Gemm" else {}
        nodes.append(helper.make_node(self.op, wide, ["y"], **attributes))
        graph = helper.make_graph(nodes, "scaled", inputs, [helper.make_tensor_value_info("y", self.type, None)], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12), [v.name for v in inputs]

    def check_program(self, text):
        assert ("mac_mx" in text) != self.plain and "dequant" not in text, "it is no product of codes"

    def expected(self):
        a, b = self.values
        start = self.start.astype(np.float32) if self.bias else np.float32(0)
        y = np.zeros(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + (self.m, self.n), np.float32) + start
        for k in range(self.k):
            y = (a[..., :, k, None].astype(np.float64) * b[..., k, None, :].astype(np.float64) + y).astype(np.float32)
        with np.errstate(over="ignore"):
            return y.astype(RESULTS[self.type])


class Weight(Case):
    """A constant weight of small floats with scales of any kind, or none, the other operand a plain float: the cores dequantise on the way."""

    def __init__(self, seed):
        rng = np.random.default_rng([seed, 1])
        pick = lambda *of: of[int(rng.integers(len(of)))]
        self.kind, self.type, self.granularity = pick(*CODES), pick(*RESULTS), pick("cast", "tensor", "column", "block", "power")
        self.m, self.n, self.k = int(rng.integers(1, 40)), 2 * int(rng.integers(1, 40)), 32 * int(rng.integers(1, 8))
        self.tile, self.target, self.by_row = pick(*TILES), pick("ascend-950pr", "ascend-910b1", "ascend-310p3", "mlu370-x4"), rng.random() < 0.5
        if self.target == "ascend-310p3": # multiplies no other floats
            self.type = T.FLOAT16
        shape, axis = ([self.n, self.k], 1) if self.by_row else ([self.k, self.n], 0)
        codes = rng.integers(-6, 7, shape) * 0.5 * 2.0 ** rng.integers(-1, 2, shape)
        tensor, wide = pack(self.kind, codes.astype(CODES[self.kind]).astype(np.float64))
        of, attributes = {"cast": ([], {}), "tensor": ([], {}), "column": ([self.n], {"axis": 1 - axis})}.get(
            self.granularity, ([d // 32 if i == axis else d for i, d in enumerate(shape)], {"axis": axis, "block_size": 32}))
        if self.granularity == "power":
            powers = rng.integers(122, 130, of).astype(np.uint8)
            scale, scales = helper.make_tensor("s", T.FLOAT8E8M0, of, powers.tobytes(), raw=True), 2.0 ** (powers.astype(np.float32) - 127)
            attributes["output_dtype"] = self.type
        else:
            scales = np.asarray(rng.uniform(0.5, 2, of)).astype(RESULTS[self.type])
            scales = np.ones([], scales.dtype) if self.granularity == "cast" else scales
            scale, scales = helper.make_tensor("s", self.type, of, scales.tobytes(), raw=True), scales.astype(np.float32)
        if "block_size" in attributes:
            scales = np.repeat(scales, 32, axis)
        elif self.granularity == "column" and self.by_row:
            scales = scales[:, None]
        self.b = (wide * scales).astype(RESULTS[self.type]).astype(np.float32)
        self.b = self.b.T if self.by_row else self.b
        self.a = (rng.integers(-32, 33, [self.m, self.k]) / 8).astype(RESULTS[self.type])
        self.files = {"a": helper.make_tensor("", self.type, [self.m, self.k], self.a.tobytes(), raw=True)}
        tensor.name = "b"
        node = helper.make_node("Cast", ["b"], ["w"], to=self.type) if self.granularity == "cast" else \
            helper.make_node("DequantizeLinear", ["b", "s"], ["w"], **attributes)
        self.parts = [node, helper.make_node("Gemm", ["a", "w"], ["y"], transB=int(self.by_row))], [tensor, scale]

    def model(self):
        nodes, constants = self.parts
        a, y = (helper.make_tensor_value_info(n, self.type, [self.m, d]) for n, d in (("a", self.k), ("y", self.n)))
        graph = helper.make_graph(nodes, "weight", [a], [y], constants[:1 if self.granularity == "cast" else 2])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12), ["a"]

    def check_program(self, text):
        assert "dequant" in text, "the weight is not dequantised on the way"

    def expected(self):
        y = np.zeros([self.m, self.n], np.float32)
        for k in range(self.k):
            y = (self.a[:, k, None].astype(np.float64) * self.b[None, k].astype(np.float64) + y).astype(np.float32)
        return y.astype(RESULTS[self.type])


def output(folder):
    file = next(f for f in folder.iterdir() if f.suffix in (".npy", ".pb"))
    if file.suffix == ".npy":
        return np.load(file).tobytes()
    tensor = onnx.load_tensor(str(file))
    return tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()


def check(options, case):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model, names = case.model()
        onnx.save(model, scratch / "m.onnx")
        given = []
        for name in names:
            (scratch / f"{name}.pb").write_bytes(case.files[name].SerializeToString())
            given += ["--input", f"{name}={scratch}/{name}.pb"]
        tile = ["--tile", case.tile] if case.tile else []
        must([options.npuc, "compile", scratch / "m.onnx", "-o", scratch / "m.plan", "--target", case.target, "--quiet", *tile])
        text = must([options.npuc, "inspect", scratch / "m.plan", "--what", "kernels"]).lower()
        case.check_program(text)
        must([options.npuc, "run", scratch / "m.plan", *given, "--output-dir", scratch / "cores", "--output-format", "pb", "--check-hazards"])
        (scratch / "reference").mkdir()
        must([options.npuc_opt, scratch / "m.onnx", "--eval", *given, "--output-dir", scratch / "reference", "--no-output"])
        want = case.expected().tobytes()
        assert output(scratch / "reference") == want, "the interpreter differs from numpy"
        assert output(scratch / "cores") == want, "the cores differ from numpy"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npuc", required=True)
    parser.add_argument("--npuc-opt", required=True)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.cases)
    return run_cases([(f"{kind.__name__} {s}", kind(s)) for s in seeds for kind in (Case, Weight)], lambda case: check(options, case))


if __name__ == "__main__":
    sys.exit(main())
