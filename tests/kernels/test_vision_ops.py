"""Sampling, regions, selection and small matrices with random shapes and attributes against onnxruntime; by one thread and
by three the bits are equal. test_window_ops.py does the comparing.

usage: test_vision_ops.py LIBRARY [ROUNDS]; exit code 1 when a case fails, 77 when onnxruntime is not installed."""
import random
import sys

import numpy as np
from onnx import helper

import test_node_ops as nodes
import test_window_ops as windows
from test_window_ops import ort, values

MS = "com.microsoft"


def floats(rng, lo, hi, shape):
    return rng.uniform(lo, hi, shape).astype(np.float32)


def grid_sample(pick, rng):
    axes = pick.choice([2, 2, 3])
    size, points = [pick.randint(1, 6) for _ in range(axes)], [pick.randint(1, 5) for _ in range(axes)]
    x = values(rng, [pick.randint(1, 2), pick.randint(1, 3), *size])
    mode = pick.choice(["linear", "nearest"] + ["cubic"] * (axes == 2))
    a = {"align_corners": pick.randint(0, 1), "mode": mode, "padding_mode": pick.choice(["zeros", "border", "reflection"])}
    return "GridSample", a, [x, floats(rng, -1.4, 1.4, [x.shape[0], *points, axes])], 1, ""


def affine_grid(pick, rng):
    axes, n = pick.randint(2, 3), pick.randint(1, 3)
    size = np.array([n, 3] + [pick.randint(2, 6) for _ in range(axes)], np.int64)
    return "AffineGrid", {"align_corners": pick.randint(0, 1)}, [values(rng, [n, axes, axes + 1]), size], 1, ""


def boxes(rng, n, height, width, scale):
    a, b = rng.random((n, 2)) * [width, height] / scale, rng.random((n, 2)) * [width, height] / scale
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], 1).astype(np.float32)


def roi_align(pick, rng):
    h, w, n, r = pick.randint(1, 12), pick.randint(1, 12), pick.randint(1, 3), pick.randint(0, 4)
    scale = pick.choice([1.0, 0.5, 0.25])
    a = {"output_height": pick.randint(1, 4), "output_width": pick.randint(1, 4), "sampling_ratio": pick.randint(0, 3),
         "spatial_scale": scale, "coordinate_transformation_mode": pick.choice(["half_pixel", "output_half_pixel"])}
    rois = boxes(rng, r, h, w, scale)
    return "RoiAlign", a, [values(rng, [n, 3, h, w]), rois, rng.integers(0, n, r)], 1, ""


def max_roi_pool(pick, rng):
    h, w, n, r = pick.randint(1, 12), pick.randint(1, 12), pick.randint(1, 3), pick.randint(1, 4)
    scale = pick.choice([1.0, 0.5])
    rois = np.concatenate([rng.integers(0, n, (r, 1)).astype(np.float32), boxes(rng, r, h, w, scale)], 1)
    a = {"pooled_shape": [pick.randint(1, 4), pick.randint(1, 4)], "spatial_scale": scale}
    return "MaxRoiPool", a, [values(rng, [n, 2, h, w]), rois], 1, ""


def crop_and_resize(pick, rng):
    n, r = pick.randint(1, 3), pick.randint(1, 4)
    x = values(rng, [n, 2, pick.randint(1, 8), pick.randint(1, 8)])
    size = np.array([pick.randint(1, 5), pick.randint(1, 5)], np.int32)
    a = {"mode": pick.choice(["bilinear", "nearest"]), "extrapolation_value": pick.choice([0.0, 7.0])}
    rois = floats(rng, -0.2, 1.2, (r, 4))
    return "CropAndResize", a, [x, rois, rng.integers(0, n, r).astype(np.int32), size], 1, MS


def deform_conv(pick, rng):
    group, offsets = pick.choice([(1, 1), (2, 1), (1, 2), (2, 2)])
    a, size = windows.window(pick, 2)
    a.pop("auto_pad", None)
    a.update(group=group, offset_group=offsets)
    pads, strides = a.setdefault("pads", [0] * 4), a["strides"]
    extent = [(k - 1) * d + 1 for k, d in zip(a["kernel_shape"], a["dilations"])]
    out = [(s + pads[i] + pads[i + 2] - e) // strides[i] + 1 for i, (s, e) in enumerate(zip(size, extent))]
    taps = int(np.prod(a["kernel_shape"]))
    n, channels = pick.randint(1, 2), 2 * pick.randint(1, 2)
    x = values(rng, [n, channels, *size])
    w = values(rng, [2 * pick.randint(1, 2), channels // group, *a["kernel_shape"]])
    offset = values(rng, [n, offsets * taps * 2, *out])
    mask = floats(rng, 0, 1, [n, offsets * taps, *out]) if pick.random() < 0.5 else None
    return "DeformConv", a, [x, w, offset, values(rng, [w.shape[0]]), mask], 1, ""


def non_max_suppression(pick, rng):
    n, c, b = pick.randint(1, 2), pick.randint(1, 3), pick.randint(1, 30)
    most, overlap, least = (np.array([v], t) for v, t in ((pick.randint(0, 8), np.int64), (pick.random(), np.float32),
                                                          (pick.random() * 0.5, np.float32)))
    given = [rng.random((n, b, 4)).astype(np.float32), np.round(rng.random((n, c, b)) * 20).astype(np.float32) / 20, most,
             overlap, least][:pick.randint(3, 5)]
    return "NonMaxSuppression", {"center_point_box": pick.randint(0, 1)}, given, 1, ""


def unique(pick, rng):
    shape = [pick.randint(0, 5) for _ in range(pick.randint(1, 3))]
    x = rng.integers(0, 3, shape).astype(pick.choice([np.float32, np.int64, np.int8, np.float64]))
    a = {"sorted": pick.randint(0, 1)}
    if pick.random() < 0.5:
        x = np.resize(x, [max(d, 1) for d in shape])
        a["axis"] = pick.randint(-x.ndim, x.ndim - 1)
    return "Unique", a, [x], 4, ""


def max_unpool(pick, rng):
    x = values(rng, [1, 2, pick.randint(1, 4), pick.randint(1, 4)])
    size = int(np.prod(x.shape)) * 4
    at = np.sort(rng.permutation(size)[: x.size]).reshape(x.shape)
    return "MaxUnpool", {"kernel_shape": [2, 2], "strides": [2, 2]}, [x, at], 1, ""


def matrices(op, domain):
    def make(pick, rng):
        n = pick.randint(1, 6)
        return op, {}, [values(rng, [pick.randint(1, 3), n, n], pick.choice("fd" if domain else "f"))], 1, domain
    return make


def col2im(pick, rng):
    a, image = windows.window(pick, 2)
    a.pop("auto_pad", None)
    block = a.pop("kernel_shape")
    pads = a.setdefault("pads", [0] * 4)
    cols = [(s + pads[i] + pads[i + 2] - (b - 1) * a["dilations"][i] - 1) // a["strides"][i] + 1
            for i, (s, b) in enumerate(zip(image, block))]
    x = values(rng, [pick.randint(1, 2), 2 * int(np.prod(block)), int(np.prod(cols))])
    return "Col2Im", a, [x, np.array(image, np.int64), np.array(block, np.int64)], 1, ""


def murmur_hash(pick, rng):
    x = rng.integers(-1000, 1000, [7]).astype(pick.choice([np.int32, np.int64, np.float32, np.float64]))
    return "MurmurHash3", {"seed": pick.randint(0, 99), "positive": pick.randint(0, 1)}, [x], 1, MS


CASES = [grid_sample, grid_sample, affine_grid, roi_align, max_roi_pool, crop_and_resize, deform_conv, non_max_suppression,
         unique, max_unpool, matrices("Det", ""), matrices("Inverse", MS), col2im, murmur_hash]


def reference(op, attrs, inputs, n_out, domain):
    """The node and what onnxruntime computes; None when it has no kernel."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(n_out)], domain=domain, **attrs)
    given = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
             for n, x in zip(names, inputs) if n]
    outs = [helper.make_empty_tensor_value_info(y) for y in node.output]
    opsets = [helper.make_opsetid("", 16 if "Roi" in op else 22), helper.make_opsetid(MS, 1)]
    model = helper.make_model(helper.make_graph([node], "g", given, outs), ir_version=10, opset_imports=opsets)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # kernels onnxruntime lacks
        return None
    return node, session.run(None, {n: x for n, x in zip(names, inputs) if n})


def run_case(kernels, case):
    op, attrs, inputs, n_out, domain = case
    found = reference(op, attrs, inputs, n_out, domain)
    if found is None:
        return "skipped"
    node, want = found
    runs = []
    for pool in (None, kernels.threads):
        kernels.pool = pool
        why = kernels.run(node, inputs, want)
        if why:
            return why
        runs.append([g.copy() for g in kernels.got])
    if any(a.tobytes() != b.tobytes() for a, b in zip(*runs)):
        return "bits depend on threads"
    return next((w for w in map(windows.judge, runs[0], want) if w), None)


def main():
    kernels = windows.Runner(sys.argv[1])
    kernels.lib.pool_new.restype = nodes.C.c_void_p
    kernels.threads = kernels.lib.pool_new(3)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    failed, done, skipped = 0, 0, {}
    for seed in range(rounds):
        for number, make in enumerate(CASES):
            case = make(random.Random(f"{seed}-{number}"), np.random.default_rng(seed))
            why = run_case(kernels, case)
            done += why != "skipped"
            if why == "skipped":
                skipped[case[0]] = skipped.get(case[0], 0) + 1
            elif why:
                failed += 1
                print(f"FAIL {case[0]} {case[1]} {[getattr(x, 'shape', None) for x in case[2]]} seed {seed}: {why}")
    print(f"{done} cases, {failed} failed; onnxruntime refuses: {skipped}")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
