#!/usr/bin/env python3
"""Writes the corpus: small models, each with one feature of the format. Needs the onnx package."""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper as nh

F = T.FLOAT
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def value(name, dims, dtype=F):
    return h.make_tensor_value_info(name, dtype, dims)


def save(name, nodes, inputs, outputs, inits=(), opset=17, functions=(), extra=()):
    g = h.make_graph(nodes, "g", inputs, outputs, list(inits))
    m = h.make_model(g, ir_version=8, opset_imports=[h.make_opsetid("", opset), *extra], functions=list(functions))
    with open(os.path.join(OUT, name + ".onnx"), "wb") as f:
        f.write(m.SerializeToString(deterministic=True))


def main():
    os.makedirs(OUT, exist_ok=True)
    x, y = value("x", ["N", 4]), value("y", None)
    c = value("c", [], T.BOOL)
    arr = lambda n, a: nh.from_array(np.asarray(a), n)
    save("elementwise", [h.make_node("Add", ["x", "w"], ["a"]), h.make_node("LeakyRelu", ["a"], ["y"], alpha=0.5)], [x], [y],
         [arr("w", np.ones(4, np.float32))])
    save("shapes", [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "i"], ["n"]),
                    h.make_node("Concat", ["n", "k"], ["t"], axis=0), h.make_node("Reshape", ["x", "t"], ["y"])], [x], [y],
         [arr("i", np.array([0])), arr("k", np.array([2, 2]))])
    branch = lambda op: h.make_graph([h.make_node(op, ["x"], ["b"])], "b", [], [value("b", None)])
    save("if", [h.make_node("If", ["c"], ["y"], then_branch=branch("Neg"), else_branch=branch("Abs"))], [x, c], [y])
    body = h.make_graph([h.make_node("Concat", ["s", "x"], ["t"], axis=0), h.make_node("Identity", ["ci"], ["co"])], "body",
                        [value("it", [], T.INT64), value("ci", [], T.BOOL), value("s", None)], [value("co", [], T.BOOL), value("t", None)])
    save("loop", [h.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [x, value("n", [], T.INT64)], [y])
    scan = h.make_graph([h.make_node("Add", ["s", "e"], ["t"]), h.make_node("Identity", ["t"], ["o"])], "scan",
                        [value("s", [4]), value("e", [4])], [value("t", [4]), value("o", [4])])
    save("scan", [h.make_node("Scan", ["z", "x"], ["f", "y"], body=scan, num_scan_inputs=1)], [x, value("z", [4])], [y])
    inner = h.make_node("LeakyRelu", ["a"], ["b"])
    ref = inner.attribute.add()
    ref.name, ref.ref_attr_name, ref.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    fn = h.make_function("my", "Scaled", ["a"], ["b"], [inner], [h.make_opsetid("", 17)], ["slope"])
    save("function", [h.make_node("Scaled", ["x"], ["y"], domain="my", slope=0.25)], [x], [y], functions=[fn], extra=[h.make_opsetid("my", 1)])
    save("old", [h.make_node("Unsqueeze", ["x"], ["a"], axes=[0]), h.make_node("Softmax", ["a"], ["b"], axis=1),
                 h.make_node("ReduceSum", ["b"], ["y"], axes=[1])], [x], [y], opset=11)
    ms = [h.make_opsetid("com.microsoft", 1)]
    save("microsoft", [h.make_node("SkipSimplifiedLayerNormalization", ["x", "x", "w"], ["a", "", "", "s"], domain="com.microsoft", epsilon=1e-5),
                       h.make_node("FusedMatMul", ["a", "s"], ["y"], domain="com.microsoft", transB=1, alpha=0.5)], [x], [y],
         [arr("w", np.ones(4, np.float32))], extra=ms)
    save("int4", [h.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=2), h.make_node("MatMul", ["x", "w"], ["y"])], [x], [y],
         [h.make_tensor("q", T.INT4, [4, 2], b"\x21\x43\x65\x07", raw=True), arr("s", np.ones((2, 2), np.float32))], opset=21)
    ext = T(name="w", data_type=F, dims=[4], data_location=T.EXTERNAL)
    for k, v in (("location", "none.bin"), ("offset", "0"), ("length", "16")):
        e = ext.external_data.add()
        e.key, e.value = k, v
    save("external", [h.make_node("Add", ["x", "w"], ["y"])], [x], [y], [ext])


main()
