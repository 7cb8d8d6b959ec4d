"""Recipes of operators that move data, of quantised ones, and of recurrent layers and attention; see recipes.py."""
import numpy as np

from graphs import FLOATS, INTS, MAX_ELEMENTS, Skip
from recipes import BOOL, F32, I32, I64, axis_of, some_axes, image, with_axes

I8, U8 = np.dtype(np.int8), np.dtype(np.uint8)
INDEX = [I64, I64, I32]


def transpose(g):
    v = g.any(1)
    g.add("Transpose", [v], {"perm": [int(i) for i in g.rng.permutation(v.rank)]} if g.chance(0.9) else {})


def reshape(g):
    v = g.any(0)
    how = g.int(0, 4)
    if how == 0 and v.rank:
        g.add("Flatten", [v], {"axis": g.int(-v.rank, v.rank)})
        return
    if how == 1:
        ones = [i for i, d in enumerate(v.shape) if d == 1]
        axes = [i - (v.rank if g.chance(0.5) else 0) for i in ones if g.chance(0.7)]
        with_axes(g, "Squeeze", v, axes if axes else None, {})
        return
    if how == 2:
        rank = v.rank + g.int(1, 2)
        with_axes(g, "Unsqueeze", v, [int(i) - (rank if g.chance(0.5) else 0) for i in g.rng.permutation(rank)[:rank - v.rank]], {})
        return
    dims = list(v.shape)
    for _ in range(g.int(0, 2)):
        if len(dims) > 1:
            i = g.int(0, len(dims) - 2)
            dims[i:i + 2] = [dims[i] * dims[i + 1]]
    for i, d in enumerate(list(dims)):
        small = [k for k in (2, 3, 4, 8) if d and d % k == 0]
        if small and g.chance(0.4):
            k = g.pick(small)
            dims[i:i + 1] = [k, d // k]
            break
    if v.size and dims and g.chance(0.5):
        dims[g.int(0, len(dims) - 1)] = -1
    g.add("Reshape", [v, g.given(np.array(dims, np.int64), True)], {"allowzero": 0 if v.size else 1})


def concat(g):
    v = g.any(1)
    axis = axis_of(g, v)
    parts = [v]
    for _ in range(g.int(0, 3)):
        shape = list(v.shape)
        shape[axis] = g.pick([0, 1, 2, 5, shape[axis]])
        same = g.old(lambda o: o.dtype == v.dtype and o.rank == v.rank and all(a == b or i == axis % v.rank for i, (a, b) in enumerate(zip(o.shape, v.shape))))
        parts.append(same if same and g.chance(0.7) else g.new(v.dtype, shape))
    g.add("Concat", parts, {"axis": axis})


def split(g):
    v = g.any(1)
    axis = axis_of(g, v)
    size = v.shape[axis]
    cut = sorted(g.int(0, size) for _ in range(g.int(0, 3)))
    parts = np.diff([0, *cut, size]).tolist()
    if "split" in g.schema("Split").attributes:
        g.add("Split", [v], {"axis": axis, "split": parts}, len(parts))
    else:
        g.add("Split", [v, g.ints(*parts)], {"axis": axis}, len(parts))


def slice_(g):
    v = g.any(1)
    axes = some_axes(g, v) or [0]
    starts, ends, steps = [], [], []
    for a in axes:
        d = v.shape[a]
        step = g.pick([1, 1, 1, 2, 3, -1, -2])
        begin, end = g.int(-d - 1, d + 1), g.int(-d - 1, d + 1)
        if g.chance(0.3):
            end = 2**63 - 1 if step > 0 else -2**63
        elif g.chance(0.7) and (end - begin) * step < 0:
            begin, end = end, begin
        starts.append(begin)
        ends.append(end)
        steps.append(step)
    whole = [starts, ends, axes] + ([steps] if g.chance(0.8) or min(steps) < 0 else [])
    g.add("Slice", [v, *(g.given(np.array(p, np.int64), True) for p in whole)])


def pad(g):
    v = g.any(1)
    mode = g.pick(["constant", "constant", "edge", "reflect", "wrap"])
    if mode == "wrap" and g.opset < 19 or mode != "constant" and v.size == 0:
        raise Skip()
    low = [-min(1, d) if mode == "constant" and g.chance(0.1) and d > 2 else 0 for d in v.shape]
    pads = [g.int(b, 3 if mode == "constant" else min(3, d - 1 if mode == "reflect" else d)) for b, d in list(zip(low, v.shape)) * 2]
    value = g.new(v.dtype, (), constant=True) if mode == "constant" and g.chance(0.5) else None
    g.add("Pad", [v, g.ints(*pads), value], {"mode": mode})


def gather(g):
    v = g.any(1)
    axis = axis_of(g, v)
    size = v.shape[axis]
    if size == 0:
        raise Skip()
    how, kind = g.int(0, 2), g.pick(INDEX)
    if how == 0:
        g.add("Gather", [v, g.new(kind, g.shape(0, 2), -size, size - 1)], {"axis": axis})
    elif how == 1:
        shape = [g.int(min(1, d), d) if i != axis % v.rank else g.dim() for i, d in enumerate(v.shape)]
        g.add("GatherElements", [v, g.new(kind, shape, -size, size - 1)], {"axis": axis})
    else:
        last = g.int(1, v.rank)
        if 0 in v.shape[:last]:
            raise Skip()
        rows = g.int(0, 4)
        index = np.stack([g.data(I64, (rows, 3), -d, d - 1) for d in v.shape[:last]], -1)
        g.add("GatherND", [v, g.given(index)])


def scatter(g):
    v = g.any(1)
    if v.size == 0:
        raise Skip()
    reduction = g.pick(["none", "none", "add", "mul", "max", "min"])
    if v.dtype == BOOL or "reduction" not in g.schema("ScatterElements").attributes:
        reduction = "none"
    made = {"reduction": reduction} if reduction != "none" else {}
    axis = axis_of(g, v)
    if g.chance(0.5):
        shape = [g.int(0, d) for d in v.shape]
        size = v.shape[axis]
        index = np.argsort(g.rng.random((*shape[:axis % v.rank], size, *shape[axis % v.rank + 1:])), axis % v.rank)
        index = index.take(range(shape[axis]), axis % v.rank) if reduction == "none" else g.data(I64, shape, -size, size - 1)
        g.add("ScatterElements", [v, g.given(index.astype(g.pick(INDEX))), g.new(v.dtype, shape)], {"axis": axis, **made})
        return
    last = g.int(1, v.rank)
    cells = int(np.prod(v.shape[:last]))
    count = g.int(0, min(cells, 6))
    flat = g.rng.permutation(cells)[:count] if reduction == "none" else g.rng.integers(0, cells, count)
    index = np.stack(np.unravel_index(flat, v.shape[:last]), -1).astype(np.int64)
    g.add("ScatterND", [v, g.given(index), g.new(v.dtype, [count, *v.shape[last:]])], made)


def spread(g):
    v = g.any(0)
    if g.chance(0.5):
        if v.rank == 0:
            raise Skip()
        g.add("Tile", [v, g.ints(*(g.pick([1, 1, 2, 3, 0 if g.chance(0.1) else 1]) for _ in v.shape))])
        return
    shape = [g.pick([2, 3, 9]) if d == 1 and g.chance(0.7) else g.pick([d, 1]) for d in v.shape]
    shape = [g.int(1, 3) for _ in range(g.int(0, 2))] + shape
    if np.prod(shape) > MAX_ELEMENTS:
        raise Skip()
    g.add("Expand", [v, g.given(np.array(shape, np.int64), True)])


def blocks(g):
    v = image(g, FLOATS + INTS, 4, 4)
    n, c, h, w = v.shape
    b = g.int(1, 3)
    if c % (b * b) == 0 and g.chance(0.6):
        g.add("DepthToSpace", [v], {"blocksize": b, "mode": g.pick(["DCR", "CRD"])})
    elif h % b == 0 and w % b == 0:
        g.add("SpaceToDepth", [v], {"blocksize": b})


def trilu(g):
    v = g.any(2)
    g.add("Trilu", [v, g.given(np.array(g.int(-3, 3), np.int64), True) if g.chance(0.7) else None], {"upper": g.int(0, 1)})


def others(g):
    how = g.int(0, 4)
    if how == 0:
        depth = g.int(1, 9)
        v = g.new(g.pick(INDEX), g.shape(0, 3), -depth, depth - 1)
        g.add("OneHot", [v, g.given(np.array(depth, np.int64), True), g.new(g.pick([F32, I64, I32]), (2,))], {"axis": g.int(-v.rank - 1, v.rank)})
    elif how == 1:
        v = g.any(2)
        time = g.int(0, 1)
        g.add("ReverseSequence", [v, g.new(I64, (v.shape[1 - time],), min(1, v.shape[time]), v.shape[time])], {"time_axis": time, "batch_axis": 1 - time})
    elif how == 2:
        v = g.some([F32, np.dtype(np.float64), I32, I64], 2, 2)
        g.add("EyeLike", [v], {"k": g.int(-2, 2)})
    elif how == 3:
        a, step = g.int(-5, 5), g.pick([-2, -1, 1, 2, 3])
        dtype = g.pick([F32, I64, I32])
        g.add("Range", [g.given(np.array(x, dtype), True) for x in (a, a + step * g.int(-1, 20), step)])
    else:
        v = g.any(1)
        g.add("Concat", [v, v, v], {"axis": axis_of(g, v)})


def resize(g):
    v = image(g, FLOATS, 3, 4)
    scales = [1.0, 1.0] + [g.pick([0.5, 1.0, 1.5, 2.0, 3.0, 0.75]) for _ in v.shape[2:]]
    sizes = [int(d * s) for d, s in zip(v.shape[2:], scales[2:])]
    mode = g.pick(["nearest", "linear", "cubic"])
    if mode == "cubic" and v.rank != 4:
        raise Skip()
    made = {"mode": mode, "coordinate_transformation_mode": g.pick(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])}
    if not all(sizes) or 1 in sizes and made["coordinate_transformation_mode"] == "pytorch_half_pixel": # onnxruntime then takes another place than 0
        raise Skip()
    if mode == "nearest":
        made["nearest_mode"] = g.pick(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if g.chance(0.5) and made["coordinate_transformation_mode"] != "align_corners": # runtimes differ in what a broken size means
        g.add("Resize", [v, None, g.given(np.array(scales, np.float32), True)], made)
    else:
        g.add("Resize", [v, None, None, g.ints(*(max(1, int(d * s)) for d, s in zip(v.shape, scales)))], made)


def quantise(g):
    v = g.some([F32, F32, np.dtype(np.float16)] if g.opset >= 19 else [F32], 0)
    if g.chance(0.2) and v.dtype == F32 and v.size:
        g.add("DynamicQuantizeLinear", [v], {}, 3)
        return
    axis = axis_of(g, v) if v.rank and g.chance(0.5) else None
    shape = () if axis is None else (v.shape[axis],)
    kind = g.pick([I8, U8])
    scale, zero = g.new(v.dtype, shape, 0.01, 0.5, True), g.new(kind, shape, max(-20, np.iinfo(kind).min), 20, True)
    made = {"axis": axis} if axis is not None else {}
    q = g.add("QuantizeLinear", [v, scale, zero], made)[0]
    if g.chance(0.8):
        g.add("DequantizeLinear", [q, scale, zero], made)


def integer(g):
    kind = g.pick([I8, U8])
    k = g.dim()
    if g.chance(0.3):
        x = image(g, [U8], 4, 4)
        w = g.new(U8, [g.pick([1, 2, 8]), x.shape[1], 1 if x.shape[2] < 3 else 3, 1])
        g.add("ConvInteger", [x, w, g.new(U8, (), 0, 9, True)])
        return
    a = g.some([kind], 2) if g.chance(0.5) else g.new(kind, (*g.shape(0, 2), g.dim(), k), constant=False)
    other = g.pick([I8, U8])
    b = g.new(other, (a.shape[-1], g.dim()))
    zeros = [g.new(kind, (), 0, 9, True) if g.chance(0.6) else None, g.new(other, () if g.chance(0.5) else (b.shape[1],), 0, 9, True) if g.chance(0.6) else None]
    if g.chance(0.6):
        g.add("MatMulInteger", [a, b, *zeros])
    else:
        scale = lambda: g.new(F32, (), 0.01, 0.3, True)
        g.add("QLinearMatMul", [a, scale(), g.new(kind, (), 0, 9, True), b, scale(), g.new(other, (), 0, 9, True), scale(), g.new(kind, (), 0, 9, True)])


def recurrent(g):
    op = g.pick(["LSTM", "GRU", "RNN"])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    dtype = g.pick([F32, F32, np.dtype(np.float16)])
    way = g.pick(["forward", "reverse", "bidirectional"])
    d = 2 if way == "bidirectional" else 1
    seq, batch, size, hidden = g.int(1, 5), g.int(1, 3), g.pick([1, 4, 9]), g.pick([1, 3, 8, 17])
    x = g.new(dtype, (seq, batch, size), -2, 2, False)
    new = lambda *s: g.new(dtype, s, -1, 1)
    inputs = [x, new(d, gates * hidden, size), new(d, gates * hidden, hidden), new(d, 2 * gates * hidden) if g.chance(0.7) else None,
              g.new(I32, (batch,), 1, seq) if g.chance(0.3) else None, new(d, batch, hidden) if g.chance(0.5) else None]
    made = {"direction": way, "hidden_size": hidden}
    if op == "GRU":
        made["linear_before_reset"] = g.int(0, 1)
    g.add(op, inputs, made, g.int(1, 3 if op == "LSTM" else 2))


def attention(g):
    dtype = g.pick([F32, F32, np.dtype(np.float16)])
    batch, kv, times, rows, keys, d = g.int(1, 2), g.int(1, 3), g.int(1, 2), g.pick([1, 5, 17]), g.pick([1, 6, 33]), g.pick([4, 8, 16])
    made = {"is_causal": g.int(0, 1)}
    shape = lambda h, s: (batch, h, s, d)
    if g.chance(0.4):
        shape = lambda h, s: (batch, s, h * d)
        made.update(q_num_heads=kv * times, kv_num_heads=kv)
    q, k, v = (g.new(dtype, shape(h, s), -2, 2, False) for h, s in ((kv * times, rows), (kv, keys), (kv, keys)))
    mask = g.new(g.pick([dtype, BOOL]), (rows, keys)) if g.chance(0.4) and not made["is_causal"] else None
    if g.chance(0.2):
        made["softcap"] = 3.0
    g.add("Attention", [q, k, v, mask], made)


def compress(g):
    v = g.any(1)
    g.add("GatherND", [v, g.ints(*[0] * v.rank)]) if v.size else g.add("Identity", [v])
