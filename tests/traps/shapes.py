"""Traps of shapes: targets computed at run time, 64-bit bounds, empty tensors, names and notes of sizes."""
import numpy as np
import onnx
from onnx import helper

import npuc
from support import call
from traps import MAX, MIN, equal, f32, fails, i64, nodes, run, same, text


def reshape_target_at_run_time():
    m = text("g (float[a, b] x, int64[2] s) => (float[c, d] y) { y = Reshape(x, s) }")
    x = f32(4, 6)
    for s in ((-1, 3), (0, -1), (2, 12), (8, -1), (0, 0)):
        want = x.reshape([d or x.shape[i] for i, d in enumerate(s)])
        same(m, {"x": x, "s": i64(*s)}, [want])
    for s in ((5, -1), (-1, -1), (2, 11), (5, 5), (-2, -12)):
        fails(3, ["error"], run, m, {"x": x, "s": i64(*s)})


def reshape_allowzero():
    m = text("g (float[a, b] x, int64[3] s) => (float[c, d, e] y) { y = Reshape<allowzero = 1>(x, s) }")
    same(m, {"x": f32(0, 5), "s": i64(3, 0, 2)}, [np.zeros((3, 0, 2), np.float32)])
    fails(3, ["'y'", "sizes"], run, m, {"x": f32(2, 5), "s": i64(0, 5, 2)})


def reshape_by_symbolic_product():
    """sequence * heads as a size, as the per-head norm of exported attention has it."""
    m = text("""g (float[batch, seq, 24] x) => (float[a, b, c] y) {
        two = Constant<value = int64[2] {0, 1}>()  one = Constant<value = int64[1] {1}>()  zero = Constant<value = int64[1] {0}>()
        six = Constant<value = int64[1] {6}>()  four = Constant<value = int64[1] {4}>()
        s = Shape(x)  seq = Gather(s, one)  b = Gather(s, zero)  rows = Mul(seq, six)
        to = Concat<axis = 0>(b, rows, four)  h = Reshape(x, to)  n = LpNormalization<axis = -1>(h)
        back = Concat<axis = 0>(b, seq, minus)  y = Reshape(n, back) }""", weights={"minus": i64(-1)})
    for shape in ((1, 1, 24), (2, 7, 24), (3, 128, 24)):
        same(m, {"x": f32(*shape)}, atol=1e-6)


def slice_int64_ends():
    x = f32(5, 6, 7)
    m = text("""g (float[a, b, c] x) => (float[p, q, r] y) { y = Slice(x, start, end, axes, step) }""",
             weights={"start": i64(1, MAX, MIN), "end": i64(MAX, MIN, MAX), "axes": i64(0, 1, -1), "step": i64(2, -2, 3)})
    same(m, {"x": x}, [x[1::2, ::-2, ::3]])
    m = text("g (float[a] x, int64[1] start, int64[1] end, int64[1] step) => (float[b] y) { y = Slice(x, start, end, , step) }")
    v = f32(9)
    for s, e, step in ((0, MAX, 1), (MAX, MIN, -1), (MIN, MAX, 4), (-3, MAX, 1), (MAX, 0, -1), (MAX, MAX, 1), (8, MIN, MIN + 1), (0, MAX, MAX)):
        same(m, {"x": v, "start": i64(s), "end": i64(e), "step": i64(step)}, [v[slice(s, e, step)]])


def shape_arithmetic_is_64_bit():
    """Bounds that pass through shape arithmetic and a cast keep their meaning."""
    m = text("""g (float[a, b] x) => (float[c, d] y, int64[1] big) {
        s = Shape(x)  n = Slice(s, zero, end)  many = Mul(n, huge)  stop = Min(many, top)  y = Slice(x, zero, stop, zero)
        big = Mul(n, huge) }""", weights={"zero": i64(0), "end": i64(1), "huge": i64(1 << 40), "top": i64(MAX)})
    x = f32(3, 2)
    same(m, {"x": x}, [x, i64(3 << 40)])


ZERO = { # operator: (text of one node, shapes of x and z, the result's shape)
    "Add": ("y = Add(x, z)", (0, 4), (1, 4), (0, 4)),
    "MatMul rows": ("y = MatMul(x, z)", (0, 4), (4, 3), (0, 3)),
    "MatMul inner": ("y = MatMul(x, z)", (2, 0), (0, 3), (2, 3)),
    "Gemm": ("y = Gemm(x, z)", (0, 4), (4, 3), (0, 3)),
    "Softmax": ("y = Softmax(x)", (3, 0), (1,), (3, 0)),
    "ReduceSum": ("y = ReduceSum<keepdims = 0>(x)", (3, 0), (1,), ()),
    "ReduceMax other": ("a = Constant<value = int64[1] {1}>() y = ReduceMax(x, a)", (0, 3), (1,), (0, 1)),
    "Concat": ("y = Concat<axis = 0>(x, z)", (0, 4), (2, 4), (2, 4)),
    "Transpose": ("y = Transpose(x)", (0, 4), (1,), (4, 0)),
    "Where": ("c = Less(x, z) y = Where(c, x, z)", (0, 4), (1, 4), (0, 4)),
    "Gather": ("i = NonZero(x) y = Gather(z, i)", (0,), (5, 2), (1, 0, 2)),
    "GatherND": ("i = NonZero(x) t = Transpose(i) y = GatherND(z, t)", (0,), (5, 2), (0, 2)),
    "NonZero none": ("i = NonZero(x) y = Cast<to = 1>(i)", (3, 4), (1,), (2, 0)),
    "Tile": ("r = Constant<value = int64[2] {0, 2}>() y = Tile(x, r)", (3, 4), (1,), (0, 8)),
    "Expand": ("r = Constant<value = int64[2] {0, 4}>() y = Expand(x, r)", (1, 4), (1,), (0, 4)),
    "Slice": ("a = Constant<value = int64[1] {2}>() y = Slice(x, a, a)", (4, 4), (1,), (0, 4)),
    "TopK": ("k = Constant<value = int64[1] {0}>() y, i = TopK(x, k)", (3, 4), (1,), (3, 0)),
    "Conv": ("y = Conv(x, z)", (0, 2, 5, 5), (3, 2, 3, 3), (0, 3, 3, 3)),
    "MaxPool": ("y = MaxPool<kernel_shape = [2, 2]>(x)", (0, 2, 4, 4), (1,), (0, 2, 3, 3)),
    "LayerNormalization": ("y = LayerNormalization(x, z)", (0, 4), (4,), (0, 4)),
    "CumSum": ("a = Constant<value = int64 {0}>() y = CumSum(x, a)", (0, 4), (1,), (0, 4)),
    "ArgMax": ("i = ArgMax<axis = 1, keepdims = 0>(x) y = Cast<to = 1>(i)", (0, 4), (1,), (0,)),
    "Pad": ("p = Constant<value = int64[2] {1, 2}>() y = Pad(x, p)", (0,), (1,), (3,)),
    "Cast": ("h = Cast<to = 10>(x) y = Cast<to = 1>(h)", (2, 0), (1,), (2, 0)),
    "ScatterND": ("i = NonZero(x) t = Transpose(i) y = ScatterND(z, t, x)", (0,), (5,), (5,)),
    "Einsum": ('y = Einsum<equation = "ij,jk->ik">(x, z)', (2, 0), (0, 3), (2, 3)),
    "Split": ("s = Constant<value = int64[2] {4, 0}>() a, y = Split<axis = 1>(x, s)", (3, 4), (1,), (3, 0)),
    "DepthToSpace": ("y = DepthToSpace<blocksize = 2>(x)", (0, 4, 2, 2), (1,), (0, 1, 4, 4)),
    "GlobalAveragePool": ("y = GlobalAveragePool(x)", (0, 2, 3, 3), (1,), (0, 2, 1, 1)),
}


def zero_sizes():
    """Every kind of kernel accepts no elements, known when compiling and only at run time."""
    for name, (body, x, z, y) in ZERO.items():
        a, b = np.zeros(x, np.float32), f32(*z)
        rank = lambda shape, p: "".join(f"{',' if i else ''}{p}{i}" for i in range(len(shape)))
        exact = lambda shape: ",".join(map(str, shape))
        free_z = exact(z) if name == "Conv" else rank(z, "q") # the size of a kernel has to be known
        for form in (f"float[{exact(x)}] x, float[{exact(z)}] z", f"float[{rank(x, 'p')}] x, float[{free_z}] z"):
            try:
                (got,) = run(text(f"g ({form}) => (float[] y) {{ {body} }}"), {"x": a, "z": b})
            except npuc.NpucError as e:
                raise AssertionError(f"{name} ({form}): {e}") from e
            assert got.shape == y, f"{name}: {got.shape}, expected {y}"
            assert got.size == 0 or name in ("Concat", "ScatterND") or not got.any(), f"{name}: an empty sum is not 0"


def weights_of_any_size():
    """Constant operands without elements, and with lines longer than what is written to a plan at a time (1,048,576 floats)."""
    for target in ("ascend-910b1", "mlu370-x4"):
        for shape in ((5, 0), (0, 7), (1_100_001, 2), (2, 1_100_001)):
            w = np.ones(shape, np.float32)
            w[-1:] = 3
            x = np.ones((2, shape[0]), np.float32)
            for body, b in (("y = MatMul(x, w)", w), ("y = Gemm<transB = 1>(x, w)", np.ascontiguousarray(w.T))):
                plan = npuc.compile(text(f"g (float[2, {shape[0]}] x) => (float[] y) {{ {body} }}", weights={"w": b}), target=target)
                with npuc.Session(plan) as s:
                    equal(s.run(None, {"x": x}), [x @ w])
        filters = text("g (float[1, 3, 4, 4] x) => (float[] y) { y = Conv(x, w) }", weights={"w": f32(0, 3, 2, 2)})
        with npuc.Session(npuc.compile(filters, target=target)) as s:
            equal(s.run(None, {"x": f32(1, 3, 4, 4)}), [np.zeros((1, 0, 3, 3), np.float32)])


def empty_past():
    """A key cache of length 0 joined with new keys, then attended to."""
    m = text("""g (float[1, 2, past, 8] k0, float[1, 2, new, 8] k, float[1, 2, new, 8] q) => (float[a, b, c, d] y, float[e, f, g, h] k1) {
        k1 = Concat<axis = 2>(k0, k)  t = Transpose<perm = [0, 1, 3, 2]>(k1)  s = MatMul(q, t)  p = Softmax(s)  y = MatMul(p, k1) }""")
    for past in (0, 3, 0):
        same(m, {"k0": f32(1, 2, past, 8), "k": f32(1, 2, 2, 8), "q": f32(1, 2, 2, 8)}, atol=1e-5)


def expert_without_tokens():
    m = text("""g (float[tokens, 4] x, int64[tokens] expert) => (float[a, b] y) {
        is = Equal(expert, one)  at = NonZero(is)  flat = Squeeze(at, zero)  rows = Gather(x, flat)  h = MatMul(rows, w)
        i = Unsqueeze(flat, last)  base = Mul(x, none)  y = ScatterND<reduction = "add">(base, i, h) }""",
             weights={"one": np.int64(1), "zero": i64(0), "last": i64(1), "none": np.float32(0), "w": f32(4, 4)})
    x = f32(3, 4)
    for expert in ((0, 0, 0), (1, 0, 1)):
        same(m, {"x": x, "expert": i64(*expert)})
    same(m, {"x": f32(0, 4), "expert": i64()}, [np.zeros((0, 4), np.float32)])


def dim_texts():
    """Texts of sizes are formulas where they parse and opaque names where they do not."""
    def model(a, b, c):
        return nodes([helper.make_node("Concat", ["p", "x"], ["t"], axis=1), helper.make_node("Add", ["t", "m"], ["y"])],
                     {"p": (1, ["batch_size", a]), "x": (1, ["batch_size", b]), "m": (1, ["batch_size", c])},
                     {"y": (1, ["batch_size", c])})
    p, x, m = f32(2, 3), f32(2, 4), f32(2, 7)
    for names in (("past_sequence_length", "sequence_length", "past_sequence_length + sequence_length"), ("s0", "s1", "s0+s1"),
                  ("a b", "c/d %n", "größe #1"), ("p", "q", "total"), ("p", "q", "2*(p"), ("p", "q", "p + q + 1 - 1"), ("", "-", "+")):
        same(model(*names), {"p": p, "x": x, "m": m}, [np.concatenate([p, x], 1) + m])


def dims_are_hints():
    """One text is one size: two sizes for it are refused with both named; two texts may be of one size."""
    m = text("g (float[n, 4] x, float[n, 4] z, float[k, 4] w) => (float[n, 4] y) { t = Add(x, z)  y = Add(t, w) }")
    x = f32(3, 4)
    same(m, {"x": x, "z": x, "w": x}, [x + x + x])
    same(m, {"x": x, "z": x, "w": x[:1]}, [x + x + x[:1]])
    fails(3, ["'z'"], run, m, {"x": x, "z": f32(5, 4), "w": x})
    fails(3, ["Add"], run, m, {"x": x, "z": x, "w": f32(2, 4)})


def notes_of_shapes():
    """value_info missing, of a wrong size, naming nothing; outputs without a shape; an operator of another domain in between."""
    body = "{ a = Relu(x)  b = com.microsoft.FastGelu(a)  s = Shape(b)  c = Reshape(b, s)  y = Neg(c) }"
    m = text(f"g (float[n, 8] x) => (float[] y) {body}", domains=[("com.microsoft", 1)])
    x = f32(3, 8)
    want = same(m, {"x": x}, atol=1e-5)
    m.graph.value_info.extend([helper.make_tensor_value_info(n, 1, s) for n, s in (("a", ["n", 9]), ("b", ["q", "r"]), ("nothing", [1]))])
    m.graph.value_info.append(helper.make_empty_tensor_value_info("c"))
    equal(run(m, {"x": x}), want)
    m.graph.output[0].ClearField("type")
    equal(run(m, {"x": x}), want)


def frozen_sizes(d):
    """A size baked into a Reshape where the input declares a free one is told by the check; other sizes are refused."""
    path = d / "frozen.onnx"
    onnx.save(text("g (float[batch, 8] x) => (float[a, b, c] y) { y = Reshape(x, s) }", weights={"s": i64(4, 2, 4)}), path)
    told = call([npuc.command(), "check", path]).stdout
    assert "works only where 8*batch = 32" in told, told
    x = f32(4, 8)
    same(path, {"x": x}, [x.reshape(4, 2, 4)])
    for rows in (3, 5):
        fails(3, ["'y'"], run, path, {"x": f32(rows, 8)})
