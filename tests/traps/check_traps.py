#!/usr/bin/env python3
"""The thirty traps of ONNX files that stop importers: each as models that are compiled and run on the emulated cores.

check_traps.py [NUMBER or WORD ...] runs some of them."""
import inspect
import pathlib
import sys
import tempfile

try:
    import ml_dtypes
    import onnx
    import onnxruntime
except ImportError:
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import control
import graphs
import operators
import shapes
from support import run_cases

# number, the trap, its tests. Finer cases: tests/unit/test_import*.c (4-10, 12, 13, 15, 20, 25, 29), tests/hostile (10, 11, 28, 29),
# tests/ms (17-20, 25), tests/cli/check_coverage.py (24), tests/models (whole exports of every kind).
TRAPS = [
    (1, "Reshape to a size that a run computes, with -1 and 0", shapes.reshape_target_at_run_time, shapes.reshape_allowzero,
     shapes.reshape_by_symbolic_product),
    (2, "64-bit bounds in shape arithmetic", shapes.slice_int64_ends, shapes.shape_arithmetic_is_64_bit),
    (3, "tensors without elements", shapes.zero_sizes, shapes.weights_of_any_size, shapes.empty_past,
     shapes.expert_without_tokens),
    (4, "absent inputs and outputs", graphs.absent_inputs, graphs.absent_outputs),
    (5, "SimplifiedLayerNormalization among ONNX's own operators", graphs.rms_norm_in_the_default_domain),
    (6, "nodes out of order", graphs.nodes_out_of_order),
    (7, "bodies that read the scopes around them", graphs.captured_values),
    (8, "names that hide others or come twice", graphs.repeated_names),
    (9, "initializers listed as inputs", graphs.initializers_among_inputs),
    (10, "data in other files", graphs.external_data),
    (11, "files at the size limit of protobuf", graphs.near_two_gib),
    (12, "old forms of operators, also in bodies and functions", graphs.old_forms_everywhere),
    (13, "functions of the model", graphs.functions, graphs.overloads, graphs.functions_named_like_operators),
    (14, "Attention by its body", operators.native_attention),
    (15, "free text as the name of a size", shapes.dim_texts, shapes.dims_are_hints),
    (16, "missing and wrong notes of shapes", shapes.notes_of_shapes),
    (17, "types that differ at foreign operators", operators.types_of_dialects),
    (18, "GroupQueryAttention with 7 to 16 inputs", operators.gqa_input_lists),
    (19, "the window of GroupQueryAttention", operators.gqa_window),
    (20, "one name, two orders of operands", operators.same_names_other_operands),
    (21, "sequences that are splits", control.sequences_that_are_splits),
    (22, "loops of every form", control.loop_forms, control.scan_forms),
    (23, "branches of different rank", control.branches_of_other_rank),
    (24, "sizes frozen by tracing", shapes.frozen_sizes),
    (25, "weights and programs in another device's form", operators.device_layouts),
    (26, "rows that are masked entirely", operators.masked_rows),
    (27, "casts out of range", operators.casts_out_of_range),
    (28, "imports of domains", graphs.imports_of_domains),
    (29, "loosely written attributes", graphs.loose_attributes),
    (30, "breadth of support", control.breadth),
]


def work(test):
    if not inspect.signature(test).parameters:
        return test()
    with tempfile.TemporaryDirectory() as d:
        return test(pathlib.Path(d))


def main():
    words = sys.argv[1:]
    assert [row[0] for row in TRAPS] == list(range(1, 31)) and all(len(row) > 2 for row in TRAPS)
    cases = [(f"{number} {test.__name__} ({line})", test) for number, line, *tests in TRAPS for test in tests]
    chosen = [c for c in cases if not words or any(w == c[0].split()[0] or (not w.isdigit() and w in c[0]) for w in words)]
    return run_cases(chosen, work)


if __name__ == "__main__":
    sys.exit(main())
