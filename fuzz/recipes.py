"""How to draw one node of each family. A recipe takes the graph and appends nodes to it, or raises Skip."""
import numpy as np

from graphs import BF16, FLOATS, INTS, MAX_ELEMENTS, NAMES, Skip, kind_of

BOOL, F32, I64, I32 = np.dtype(bool), np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.int32)
ATTRIBUTES = { # of elementwise operators: name: (low, high) or choices
    "LeakyRelu": {"alpha": (-0.5, 0.5)}, "Elu": {"alpha": (0.1, 2)}, "Selu": {"alpha": (0.5, 2), "gamma": (0.5, 2)},
    "Celu": {"alpha": (0.3, 2)}, "ThresholdedRelu": {"alpha": (-1, 1)}, "HardSigmoid": {"alpha": (0.1, 0.5), "beta": (0.1, 0.9)},
    "Shrink": {"lambd": (0, 1), "bias": (-1, 1)}, "Gelu": {"approximate": ["none", "tanh"]}, "Swish": {"alpha": (0.5, 2)},
    "IsInf": {"detect_negative": [0, 1], "detect_positive": [0, 1]}, "BitShift": {"direction": ["LEFT", "RIGHT"]},
}
OTHER_FORMS = {"Clip", "Cast", "CastLike", "Where", "PRelu", "DequantizeLinear", "QuantizeLinear", "SwiGLU"}


def attributes_of(g, op):
    made = {}
    for name, choice in ATTRIBUTES.get(op, {}).items():
        if g.chance(0.7) or op == "BitShift":
            made[name] = g.pick(choice) if isinstance(choice, list) else float(np.float32(g.rng.uniform(*choice)))
    return made


def types_of(schema, name):
    for c in schema.type_constraints:
        if c.type_param_str == name:
            return [t for word, t in NAMES.items() if f"tensor({word})" in c.allowed_type_strs]
    return [t for word, t in NAMES.items() if f"tensor({word})" == name]


def elementwise(op):
    """The recipe of an operator whose inputs broadcast against each other."""
    def draw(g):
        schema = g.schema(op)
        types = types_of(schema, schema.inputs[0].type_str)
        floats = [t for t in FLOATS if t in types]
        a = g.some(floats if floats and g.chance(0.7) else types, 0, 4)
        inputs = [a]
        for formal in schema.inputs[1:]:
            inputs.append(g.partner(a) if formal.type_str == schema.inputs[0].type_str else g.partner(a, types_of(schema, formal.type_str)))
        if len(schema.inputs) == 1 and schema.max_input > 1:
            inputs += [g.partner(a) for _ in range(g.int(0, 3))]
        made = attributes_of(g, op)
        if op == "Mod":
            made["fmod"] = 1 if kind_of(a.dtype) == "f" else g.int(0, 1)
        if op in ("Div", "Mod") and kind_of(a.dtype) in "iu":
            inputs[1] = g.new(a.dtype, inputs[1].shape, 1, 7)
        if op == "BitShift":
            inputs[1] = g.new(a.dtype, inputs[1].shape, 0, 7)
        g.add(op, inputs, made)
    return draw


def axis_of(g, v):
    if v.rank == 0:
        raise Skip()
    return g.int(-v.rank, v.rank - 1)


def some_axes(g, v):
    count = g.int(0, v.rank)
    return [int(a) - (v.rank if g.chance(0.5) else 0) for a in g.rng.permutation(v.rank)[:count]]


def with_axes(g, op, v, axes, made, more=()):
    """axes as an attribute or an input, as the operator's version has it; None leaves them out."""
    if "axes" in g.schema(op).attributes:
        return g.add(op, [v, *more], {**made, "axes": axes})
    return g.add(op, [v, None if axes is None else g.given(np.array(axes, np.int64), True), *more], made)


def clip(g):
    v = g.some(FLOATS + INTS)
    bounds = [g.new(v.dtype, (), low, high) if g.chance(0.8) else None for low, high in ((0, 2), (1, 5))]
    g.add("Clip", [v, *bounds])


def cast(g):
    v = g.any()
    to = g.pick(list(NAMES.values()))
    if kind_of(v.dtype) == "f" and kind_of(to) in "iu":
        low, high = (0, 100) if to.kind == "u" else (-100, 100)
        v = g.add("Clip", [v, g.given(np.array(low, v.dtype), True), g.given(np.array(high, v.dtype), True)])[0]
    if g.chance(0.2):
        g.add("CastLike", [v, g.new(to, ())])
    else:
        from graphs import onnx_type
        g.add("Cast", [v], {"to": onnx_type(to)})


def where(g):
    v = g.any()
    g.add("Where", [g.partner(v, [BOOL]), v, g.partner(v)])


def prelu(g):
    v = g.float(1)
    g.add("PRelu", [v, g.new(v.dtype, [d if g.chance(0.6) else 1 for d in v.shape[g.int(0, v.rank):]])])


def reduction(g):
    op = g.pick(["Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum", "LogSumExp"])
    v = g.float() if g.chance(0.8) else g.some(INTS)
    axes = some_axes(g, v) if g.chance(0.85) else None
    made = {"keepdims": g.int(0, 1)}
    if axes == []:
        made["noop_with_empty_axes"] = g.int(0, 1) if "axes" not in g.schema("Reduce" + op).attributes else None
    with_axes(g, "Reduce" + op, v, axes, made)


def arg(g):
    v = g.some(FLOATS + INTS, 1)
    axis = axis_of(g, v)
    if not v.shape[axis]: # refused
        raise Skip()
    g.add(g.pick(["ArgMax", "ArgMin"]), [v], {"axis": axis, "keepdims": g.int(0, 1), "select_last_index": g.int(0, 1)})


def softmax(g):
    v = g.float(1)
    g.add(g.pick(["Softmax", "LogSoftmax", "Hardmax"]), [v], {"axis": axis_of(g, v)})


def cumulative(g):
    v = g.some(FLOATS + INTS, 1)
    axis = g.given(np.array(axis_of(g, v), g.pick([np.int64, np.int32])), True)
    g.add(g.pick(["CumSum", "CumSum", "CumProd"]), [v, axis], {"exclusive": g.int(0, 1), "reverse": g.int(0, 1)})


def topk(g):
    v = g.some(FLOATS + INTS, 1)
    axis = axis_of(g, v)
    k = g.int(0, v.shape[axis])
    g.add("TopK", [v, g.ints(k)], {"axis": axis, "largest": g.int(0, 1), "sorted": 1}, 2)


def matmul(g):
    a = g.float(1) if g.chance(0.8) else g.some([I32, I64], 1)
    other = [1 if g.chance(0.3) else d for d in a.shape[:-2]][g.int(0, max(0, a.rank - 2)):]
    b = g.new(a.dtype, [*other, a.shape[-1], g.dim()] if g.chance(0.85) else [a.shape[-1]])
    g.add("MatMul", [a, b] if g.chance(0.8) or b.rank != a.rank else [b, a])


def gemm(g):
    a = g.float(2, 2)
    ta, tb, n = g.int(0, 1), g.int(0, 1), g.dim()
    m, k = a.shape[::-1] if ta else a.shape
    b = g.new(a.dtype, (n, k) if tb else (k, n))
    c = g.new(a.dtype, g.pick([(m, n), (n,), (1, n), (m, 1), ()])) if g.chance(0.7) else None
    g.add("Gemm", [a, b, c], {"transA": ta, "transB": tb, "alpha": g.pick([1.0, 0.5, -2.0]), "beta": g.pick([1.0, 0.25, 0.0])})


def einsum(g):
    equation = g.pick(["ij,jk->ik", "bij,bjk->bik", "bhid,bhjd->bhij", "ij->ji", "ii->i", "ij->", "i,j->ij", "bij,bij->bi", "...ij,...jk->...ik"])
    sizes = {c: g.pick([1, 2, 3, 5, 8, 17]) for c in "bhijkd"}
    dtype = g.pick(FLOATS)
    parts = [p.replace("...", "b") for p in equation.split("->")[0].split(",")]
    g.add("Einsum", [g.new(dtype, [sizes[c] for c in p], constant=False) for p in parts], {"equation": equation})


def window(g, v, pooled):
    """Attributes of a window over the spatial axes of v: kernel, strides, dilations, padding."""
    spatial = v.shape[2:]
    kernel = [g.int(1, max(1, min(4, s))) for s in spatial]
    made = {"kernel_shape": kernel}
    if g.chance(0.6):
        made["strides"] = [g.int(1, 3) for _ in spatial]
    if g.chance(0.3):
        made["dilations"] = [g.int(1, 2) for _ in spatial]
    if g.chance(0.25) and "dilations" not in made:
        made["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif g.chance(0.6):
        made["pads"] = [g.int(0, k - 1 if pooled else k) for k in kernel * 2]
    return made


def window_fits(v, made):
    """A window that is wider than the padded axis is refused."""
    n = v.rank - 2
    pads, dilations = made.get("pads", [0] * 2 * n), made.get("dilations", [1] * n)
    return made.get("auto_pad", "VALID") != "VALID" or all(
        dilations[i] * (k - 1) < v.shape[2 + i] + pads[i] + pads[n + i] for i, k in enumerate(made["kernel_shape"]))


def image(g, types, low=3, high=5):
    v = g.old(lambda v: low <= v.rank <= high and v.dtype in types and v.size) if g.chance(0.5) else None
    if v:
        return v
    rank = g.pick([r for r in (3, 4, 4, 4, 5) if low <= r <= high])
    spatial = [g.pick([1, 3, 5, 8, 13]) for _ in range(rank - 2)]
    return g.new(g.pick(types), [g.pick([1, 1, 2, 3, 0 if g.chance(0.1) else 1]), g.pick([1, 2, 3, 4, 6, 8, 17]), *spatial], constant=False)


def conv(g):
    v = image(g, FLOATS)
    made = window(g, v, False)
    channels = v.shape[1]
    group = g.pick([d for d in range(1, channels + 1) if channels % d == 0] + [1, channels])
    if group < 1:
        raise Skip()
    made["group"] = group
    per = g.pick([1, 2, 3, 5, 16 if group == 1 else 1])
    if g.chance(0.7):
        if not window_fits(v, made):
            raise Skip()
        w = g.new(v.dtype, [per * group, channels // group, *made["kernel_shape"]])
        bias = [g.new(v.dtype, [per * group])] if g.chance(0.5) else []
        g.add("Conv", [v, w, *bias], made)
        return
    if "auto_pad" in made and made["auto_pad"] != "VALID":
        made.pop("auto_pad")
    if g.chance(0.3):
        made["output_padding"] = [min(g.int(0, 1), s - 1) for s in made.get("strides", [1] * (v.rank - 2))]
    w = g.new(v.dtype, [channels, per, *made["kernel_shape"]])
    bias = [g.new(v.dtype, [per * group])] if g.chance(0.5) else []
    g.add("ConvTranspose", [v, w, *bias], made)


def pool(g):
    op = g.pick(["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
    v = image(g, FLOATS)
    if op.startswith("Global"):
        g.add(op, [v], {"p": g.int(1, 3)} if op == "GlobalLpPool" else {})
        return
    made = window(g, v, True)
    if g.chance(0.3):
        made["ceil_mode"] = 1
    if op == "AveragePool":
        made["count_include_pad"] = g.int(0, 1)
    if op == "LpPool":
        made["p"] = g.int(1, 3)
    if any(k not in g.schema(op).attributes for k in made):
        raise Skip()
    g.add(op, [v], made, 2 if op == "MaxPool" and g.chance(0.3) and v.dtype != BF16 else 1)


def norm(g):
    op = g.pick(["LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization", "LRN",
                 "LpNormalization", "MeanVarianceNormalization"])
    v = g.float(1) if op in ("LayerNormalization", "RMSNormalization", "LpNormalization") else image(g, FLOATS)
    new = lambda shape, low=-2, high=2: g.new(v.dtype, shape, low, high)
    c = v.shape[1] if v.rank > 1 else 1
    if op in ("LayerNormalization", "RMSNormalization"):
        axis = axis_of(g, v)
        tail = v.shape[axis:]
        bias = [new(tail)] if op[0] == "L" and g.chance(0.6) else []
        g.add(op, [v, new(tail), *bias], {"axis": axis, "epsilon": 1e-3})
    elif op == "GroupNormalization":
        group = g.pick([d for d in range(1, c + 1) if c % d == 0])
        n = c if g.opset >= 21 else group
        g.add(op, [v, new([n]), new([n])], {"num_groups": group})
    elif op == "InstanceNormalization":
        g.add(op, [v, new([c]), new([c])])
    elif op == "BatchNormalization":
        g.add(op, [v, new([c]), new([c]), new([c]), new([c], 0.1, 3)])
    elif op == "LRN":
        g.add(op, [v], {"size": g.pick([1, 3, 5])})
    elif op == "LpNormalization":
        g.add(op, [v], {"axis": axis_of(g, v), "p": g.int(1, 2)})
    else:
        g.add(op, [v], {"axes": some_axes(g, v) or [0]})
