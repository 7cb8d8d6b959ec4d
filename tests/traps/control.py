"""Traps of control flow, sequences and breadth."""
import numpy as np
from onnx import helper

from traps import f32, nodes, run, same, text


def on_host(steps):
    return [s["op"] for s in steps if s["host"]]


def sequences_that_are_splits():
    """chunk and unbind: no sequence is left in the plan, whatever builds it."""
    m = text("""g (float[n, 6] x) => (float[n, 2] y, float[n, 6] z) {
        zero = Constant<value = int64 {0}>()  last = Constant<value = int64 {-1}>()  two = Constant<value = int64 {2}>()
        s = SplitToSequence<axis = 1>(x, two)  a = SequenceAt(s, zero)  b = SequenceAt(s, last)  y = Add(a, b)
        t = SequenceConstruct(b, a, b)  z = ConcatFromSequence<axis = 1>(t) }""")
    x = f32(3, 6)
    want = [x[:, :2] + x[:, 4:], np.concatenate([x[:, 4:], x[:, :2], x[:, 4:]], 1)]
    same(m, {"x": x}, want)
    steps = run(m, {"x": x}, report=True)[1]
    assert not on_host(steps), on_host(steps)
    m = text("""g (float[2, 3] x) => (float[3] y) { one = Constant<value = int64 {1}>()
        s = SplitToSequence<axis = 0, keepdims = 0>(x)  y = SequenceAt(s, one) }""")
    x = f32(2, 3)
    same(m, {"x": x}, [x[1]])


LOOP = """g (int64 m, float[n] x) => (float[n] y, float[t, n] all) {
    yes = Constant<value = bool {1}>()  three = Constant<value = int64 {3}>()
    y, all = Loop (%s, %s, x) <body = b (int64 i, bool c, float[n] v) => (bool d, float[n] w, float[n] s) {
        w = Add(v, v)  s = Neg(w)  %s }> }"""
GOES_ON, STOPS = "d = Identity(c)", "k = ReduceMax<keepdims = 0>(w)  top = Constant<value = float {20.0}>()  d = Less(k, top)"


def loop_forms():
    """Constant trip counts, counts given at run time, while, endless with an exit; empty trip count and condition."""
    x = np.float32([1, 0.5])
    cases = (("three", "yes", GOES_ON, 3), ("three", "", GOES_ON, 3), ("m", "yes", GOES_ON, 4), ("m", "", GOES_ON, 4), ("", "yes", STOPS, 5),
             ("three", "yes", STOPS, 3), ("", "", STOPS, 5))
    for trips, go, cond, turns in cases:
        w = [x * 2.0 ** (i + 1) for i in range(turns)]
        try:
            same(text(LOOP % (trips, go, cond)), {"m": np.int64(4), "x": x}, [w[-1].astype(np.float32), -np.array(w, np.float32)])
        except Exception as e:
            raise AssertionError(f"trips '{trips}', condition '{go}': {e}") from e


def scan_forms():
    """A recurrence over rows, forward and backward, with a state."""
    for direction in (0, 1):
        m = text(f"""g (float[3] h, float[t, 3] x) => (float[3] last, float[t, 3] all) {{
            last, all = Scan <num_scan_inputs = 1, scan_input_directions = [{direction}], body = b (float[3] a, float[3] r) => (float[3] c, float[3] d) {{
                s = Add(a, r)  c = Tanh(s)  d = Identity(c) }}> (h, x) }}""")
        for rows in (1, 5):
            same(m, {"h": f32(3), "x": f32(rows, 3)}, atol=1e-5)


SQUEEZE = """g (float[a, b, 3] x{more}) => (float[] y) {{
    {condition}
    y = If (c) <then_branch = t () => (float[] q) {{ one = Constant<value = int64[1] {{1}}>()  q = Squeeze(x, one) }},
                else_branch = e () => (float[] s) {{ s = Identity(x) }}> }}"""
OF_SHAPE = """s = Shape(x)  k = Constant<value = int64 {1}>()  n = Gather(s, k)  c = Equal(n, k)"""


def branches_of_other_rank():
    """The squeeze idiom, on a constant, on a size, and on a value that only a run tells."""
    for shape in ((2, 1, 3), (2, 5, 3)):
        x = f32(*shape)
        want = [x[:, 0] if shape[1] == 1 else x]
        same(text(SQUEEZE.format(more="", condition=OF_SHAPE)), {"x": x}, want)
        fixed = text(SQUEEZE.format(more="", condition=OF_SHAPE).replace("float[a, b, 3]", f"float[{shape[0]}, {shape[1]}, 3]"))
        same(fixed, {"x": x}, want)
        steps = run(fixed, {"x": x}, report=True)[1]
        assert not any(s["op"] == "If" for s in steps), "a known branch is left to the run"
        same(text(SQUEEZE.format(more=", bool c", condition="")), {"x": x, "c": np.bool_(shape[1] == 1)}, want)
    fixed = text(SQUEEZE.format(more="", condition="c = Constant<value = bool {1}>()"))
    x = f32(2, 1, 3)
    same(fixed, {"x": x}, [x[:, 0]])


def breadth():
    """Every opset from 1 to 28, casts between many types, random operators."""
    x = f32(2, 3)
    for opset in range(1, 29):
        same(text("g (float[n, 3] x) => (float[n, 3] y) { t = Relu(x)  u = Abs(t)  y = Sum(u, x) }", opset=opset, ir=3 if opset < 9 else 10),
             {"x": x}, [np.maximum(x, 0) + x])
    m = text("g (float[n] p) => (float[n] y) { y = Bernoulli<seed = 3.0>(p) }")
    (y,) = run(m, {"p": np.float32([0, 1] * 500 + [0.5] * 1000)})
    assert not y[:1000:2].any() and y[1:1000:2].all() and 400 < y[1000:].sum() < 600
    kinds = {np.float16: 10, np.float64: 11, np.int8: 3, np.uint8: 2, np.int16: 5, np.uint16: 4, np.int32: 6, np.int64: 7, np.uint32: 12, np.uint64: 13}
    for a, code in kinds.items():
        for b, other in kinds.items():
            m = nodes([helper.make_node("Cast", ["x"], ["y"], to=other)], {"x": (code, ["n"])}, {"y": (other, ["n"])})
            v = np.array([0, 1, 5, 100], a)
            same(m, {"x": v}, [v.astype(b)])
