#!/usr/bin/env python3
"""npuc ops: docs/operators.md is its output, every operator has an example that compiles, and what it says of the cores is so."""
import argparse
import json
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto
from onnx.backend.test.loader import load_model_tests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import support

NEWEST = 28
NEEDS_CODECS = {"ImageDecoder"} # the only operator of ai.onnx that has no meaning within a plan
TYPES = {TensorProto.FLOAT: "f32", TensorProto.FLOAT16: "f16", TensorProto.DOUBLE: "f64", TensorProto.BFLOAT16: "bf16", TensorProto.INT8: "i8",
         TensorProto.UINT8: "u8", TensorProto.INT32: "i32", TensorProto.INT64: "i64", TensorProto.BOOL: "bool"}
ONNX_TYPES = set(TensorProto.DataType.keys()) - {"UNDEFINED"}
OWN_TYPES = {"hif8"} # which ONNX has no number for
# Official cases of usual sizes and the operand whose type counts
SPOTS = {"test_add": 0, "test_attention_4d": 0, "test_averagepool_2d_default": 0, "test_basic_conv_with_padding": 0, "test_cast_FLOAT_to_FLOAT16": 0,
         "test_concat_2d_axis_0": 0, "test_cumsum_1d": 0, "test_einsum_batch_matmul": 0, "test_gather_0": 0, "test_gemm_default_vector_bias": 0,
         "test_layer_normalization_2d_axis1": 0, "test_lstm_defaults": 0, "test_matmul_2d": 0, "test_maxpool_2d_default": 0,
         "test_quantizelinear": 2, "test_reduce_sum_keepdims_example": 0, "test_softmax_axis_1": 0, "test_top_k": 0, "test_transpose_default": 0,
         "test_where_example": 1}


def run(npuc, *args):
    return support.call([npuc, "ops", *args], 60)


def matrix(npuc, *args):
    return json.loads(support.must([npuc, "ops", "--json", *args], 60))


def test_document(npuc, root, _):
    made = support.must([npuc, "ops", "--md"], 60)
    assert made == (root / "docs/operators.md").read_text(), "docs/operators.md is stale: npuc ops --md > docs/operators.md"


def first_versions():
    first = {}
    for s in onnx.defs.get_all_schemas_with_history():
        if s.domain == "":
            first[s.name] = min(first.get(s.name, s.since_version), s.since_version)
    return {name: version for name, version in first.items() if version <= NEWEST}


def test_complete(npuc, _root, report):
    rows = {(r["domain"], r["op"]): r for r in report["operators"]}
    assert report["schema"] == 1 and OWN_TYPES <= set(report["types"]) and len(report["types"]) == len(ONNX_TYPES) + len(OWN_TYPES) and len(rows) == len(report["operators"])
    for name, version in first_versions().items():
        assert ("ai.onnx", name) in rows, f"{name} is missing"
        assert rows["ai.onnx", name]["opset_from"] == version, f"{name}: opset {rows['ai.onnx', name]['opset_from']}, not {version}"
    for (domain, op), r in rows.items():
        assert domain != "npuc", op
        assert bool(r["types"]) != bool(r["refused"]), f"{domain} {op} neither compiles nor is refused: no row in tools/ops/examples.def?"
        if r["refused"]:
            assert op in NEEDS_CODECS or not r["examples"], f"{domain} {op}: its example does not compile: {r['refused']}"
            continue
        assert r["examples"] and r["class"], f"{domain} {op} has no example or class"
        for target, use in r["on"].items():
            places = [set(use[k]) for k in ("npu", "view", "host")]
            assert sorted(t for p in places for t in p) == sorted(r["types"]), f"{domain} {op} on {target}: a type has not one place"
            assert places[2] == {t for w in use["reasons"] for t in w["types"]}, f"{domain} {op} on {target}: a type without reason"


def test_each_target(npuc, _root, report):
    """Targets of one kind of core share their rows; each of them alone says the same."""
    for target in report["targets"]:
        for one, all_ in zip(matrix(npuc, "--target", target)["operators"], report["operators"]):
            assert one["on"][target] == all_["on"][target], f"{one['op']} on {target}"


def test_official_cases(npuc, _root, report):
    rows = {r["op"]: r for r in report["operators"] if r["domain"] == "ai.onnx"}
    warnings.simplefilter("ignore") # the cases overflow on purpose
    cases = {c.name: c for c in load_model_tests(kind="node") if c.name in SPOTS}
    target, wrong = "ascend-910b1", []
    assert len(cases) == len(SPOTS), set(SPOTS) - set(cases)
    with tempfile.TemporaryDirectory() as scratch:
        for name, operand in SPOTS.items():
            graph = cases[name].model.graph
            node = graph.node[0]
            info = next(i for i in graph.input if i.name == node.input[operand])
            dtype, row = TYPES[info.type.tensor_type.elem_type], rows[node.op_type]
            assert dtype in row["types"], f"{name}: {node.op_type} of {dtype} is not in the matrix"
            model = pathlib.Path(scratch) / f"{name}.onnx"
            onnx.save(cases[name].model, model)
            support.must([npuc, "compile", model, "--target", target, "-o", model.with_suffix(".plan")])
            (seen,) = json.loads(support.call([npuc, "check", model, "--target", target, "--json"]).stdout)["targets"]
            use = row["on"][target]
            if dtype in use["npu"] + use["view"] and seen["host"] > 0:
                wrong.append(f"{name} ({node.op_type} of {dtype})")
    assert not wrong, "on the host, but on the cores in the matrix: " + ", ".join(wrong)


def one_node(scratch, npuc, op, dtype, values):
    """Compiles and runs a node on a constant of three elements; the last command's result."""
    h = onnx.helper
    model, plan = pathlib.Path(scratch) / "m.onnx", pathlib.Path(scratch) / "m.plan"
    node = h.make_node(op, ["c"], ["y"], **({"axis": 0} if op == "ArgMax" else {}))
    graph = h.make_graph([h.make_node("Constant", [], ["c"], value=h.make_tensor("v", dtype, [3], values)), node], "g", [],
                         [h.make_tensor_value_info("y", TensorProto.INT64, None)])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10), model)
    done = support.call([npuc, "compile", model, "--target", "ascend-910b1", "-o", plan])
    return support.call([npuc, "run", plan, "--output-dir", scratch]) if done.returncode == 0 else done


def test_beyond_numbers(npuc, _root, _report):
    """Complex numbers and text: looked at where that has a meaning; elsewhere a message, no crash."""
    with tempfile.TemporaryDirectory() as scratch:
        for dtype, values in ((TensorProto.COMPLEX64, [1 + 2j, 0, 4j]), (TensorProto.COMPLEX128, [3j, 0, 1]), (TensorProto.STRING, [b"a", b"", b"b"])):
            done = one_node(scratch, npuc, "NonZero", dtype, values)
            assert done.returncode == 0, done.stderr
            assert np.load(pathlib.Path(scratch) / "y.npy").tolist() == [[0, 2]]
            done = one_node(scratch, npuc, "ArgMax", dtype, values)
            assert done.returncode in (3, 4, 5) and "ArgMax takes no" in support.last_line(done.stderr), (done.returncode, done.stderr)


def test_command(npuc, _root, _report):
    done = run(npuc, "Conv", "MatMulNBits", "--target", "ascend-910b1,ascend-310p3")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and any(x.startswith("Conv ") for x in lines) and any(x.startswith("MatMulNBits ") for x in lines), done
    assert "com.microsoft" in done.stdout and "Relu " not in done.stdout
    for args, words in ((["Nope"], "no operator"), (["--target", "nope"], "nope")):
        done = run(npuc, *args)
        assert done.returncode == 2 and words in support.last_line(done.stderr), done


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--npuc", required=True, type=pathlib.Path)
    ap.add_argument("--root", required=True, type=pathlib.Path)
    args = ap.parse_args()
    report = matrix(args.npuc)
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_")]
    return support.run_cases(tests, lambda test: test(args.npuc, args.root, report))


if __name__ == "__main__":
    sys.exit(main())
