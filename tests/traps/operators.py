"""Traps of operators: attention and its relatives, types at their borders, masks, casts, other devices' layouts."""
import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from traps import equal, f32, i64, nodes, refused, run, same, text

F16, F32, I32, I64, U8 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8
MS = [("com.microsoft", 1)]
B, S, P, N, G, H = 1, 3, 2, 4, 2, 16 # batch, new rows, past rows, heads, key heads, head size


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q, k, v, hidden=None):
    """q [B, N, S, H], k and v [B, G, T, H]; hidden: [S, T] of what is not seen."""
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
    s = q @ k.swapaxes(-1, -2) / np.sqrt(np.float32(q.shape[-1]))
    return softmax(np.where(hidden, np.float32(-np.inf), s) if hidden is not None else s) @ v


def heads(x, n):
    return x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)


def flat(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def causal(window=0):
    row, key = np.arange(S)[:, None] + P, np.arange(S + P)[None]
    return (key > row) | (key <= row - window if window else False)


def rotate(x, at):
    """The halves of the last axis of [B, N, S, H] turned by the rows `at` of the tables."""
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * COS[at] - b * SIN[at], a * SIN[at] + b * COS[at]], -1)


ANGLE = np.arange(16)[:, None] / 10.0 ** np.arange(H // 2)[None]
COS, SIN = np.cos(ANGLE).astype(np.float32), np.sin(ANGLE).astype(np.float32)


def native_attention():
    """Attention is one operator of the plan, and a row that sees nothing is not NaN."""
    m = nodes([helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"], is_causal=0)],
              {"q": (F32, [B, N, "s", H]), "k": (F32, [B, G, "t", H]), "v": (F32, [B, G, "t", H]), "mask": (TensorProto.BOOL, ["s", "t"])},
              {"y": (F32, [B, N, "s", H])}, opset=23)
    q, k, v = f32(B, N, S, H), f32(B, G, S + P, H), f32(B, G, S + P, H)
    got, steps = run(m, {"q": q, "k": k, "v": v, "mask": ~causal()}, report=True)
    equal(got, [attend(q, k, v, causal())], atol=1e-4)
    assert any("Attention" in s["op"] for s in steps) and not any("Softmax" in s["op"] for s in steps), [s["op"] for s in steps]


def gqa(rows, feeds, **attrs):
    """GroupQueryAttention with past; rows: its input names."""
    types = {np.float32: F32, np.int32: I32, np.int64: I64, np.float16: F16}
    inputs = {n: (types[a.dtype.type], a.shape) for n, a in feeds.items()}
    out = inputs["q"][0]
    return nodes([helper.make_node("GroupQueryAttention", rows, ["y", "pk", "pv"], domain="com.microsoft", num_heads=N, kv_num_heads=G, **attrs)],
                 inputs, {"y": (out, [B, S, N * H]), "pk": (out, [B, G, S + P, H]), "pv": (out, [B, G, S + P, H])}, domains=MS)


def gqa_feeds():
    return {"q": f32(B, S, N * H), "k": f32(B, S, G * H), "v": f32(B, S, G * H), "k0": f32(B, G, P, H), "v0": f32(B, G, P, H),
            "last": np.full(B, S + P - 1, np.int32), "total": np.array(S + P, np.int32)}


def gqa_result(f, hidden, turn=lambda x: x):
    k, v = (np.concatenate([f[n + "0"], turn(heads(f[n], G)) if n == "k" else heads(f[n], G)], 2) for n in "kv")
    return [flat(attend(turn(heads(f["q"], N)), k, v, hidden)), k, v]


def gqa_input_lists():
    """7 to 16 inputs, holes in the middle, a packed query, trailing empty names."""
    f = gqa_feeds()
    plain, want = list(f), gqa_result(f, causal())
    for tail in ([], [""] * 2, [""] * 9):
        same(gqa(plain + tail, f), f, want, atol=1e-4)
    packed = {"q": np.concatenate([f["q"], f["k"], f["v"]], -1), **{n: f[n] for n in plain[3:]}}
    same(gqa(["q", "", "", *plain[3:]], packed), packed, want, atol=1e-4)
    wide = {**f, "cos": COS, "sin": SIN}
    turned = gqa_result(f, causal(), lambda x: rotate(x, np.arange(S) + P))
    same(gqa([*plain, "cos", "sin"], wide, do_rotary=True), wide, turned, atol=1e-4)
    wide["bias"] = np.zeros((1, 1, S, S + P), np.float32)
    same(gqa([*plain, "cos", "sin", "", "bias", "", "", "", "", ""], wide, do_rotary=1), wide, turned, atol=1e-4)
    refused(gqa(plain[:4], {n: f[n] for n in plain[:4]}), "GroupQueryAttention", "input")
    refused(gqa(plain + [""] * 9 + ["q"], f), "GroupQueryAttention")


def gqa_window():
    """A window of W is W keys, the current one among them."""
    f = gqa_feeds()
    for window in (1, 2, 4):
        same(gqa(list(f), f, local_window_size=window), f, gqa_result(f, causal(window)), atol=1e-4)


def same_names_other_operands():
    """RotaryEmbedding and Attention differ between the domains in operands and attributes."""
    x, at = f32(B, N, S, H), i64(*range(S)).reshape(B, S) + P
    want = [rotate(x, np.arange(S) + P)]
    ms = nodes([helper.make_node("RotaryEmbedding", ["x", "at", "cos", "sin"], ["y"], domain="com.microsoft")],
               {"x": (F32, x.shape), "at": (I64, at.shape)}, {"y": (F32, x.shape)}, domains=MS, weights={"cos": COS, "sin": SIN})
    own = nodes([helper.make_node("RotaryEmbedding", ["x", "cos", "sin", "at"], ["y"])], {"x": (F32, x.shape), "at": (I64, at.shape)},
                {"y": (F32, x.shape)}, opset=23, weights={"cos": COS, "sin": SIN})
    same(ms, {"x": x, "at": at}, want)
    same(own, {"x": x, "at": at}, want)
    tokens, w, bias = f32(B, S, 8), f32(8, 3 * N * H), f32(3 * N * H)
    m = nodes([helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=N)], {"x": (F32, tokens.shape)},
              {"y": (F32, [B, S, N * H])}, domains=MS, weights={"w": w, "b": bias})
    q, k, v = np.split(tokens @ w + bias, 3, -1)
    same(m, {"x": tokens}, [flat(attend(*(heads(a, N) for a in (q, k, v))))], atol=1e-4)


def types_of_dialects():
    """Half-precision data beside single-precision tables; types behind MatMulNBits are inferred, whatever notes say."""
    x, at = f32(B, N, S, H).astype(np.float16), i64(*range(S)).reshape(B, S)
    half = lambda a: a.astype(np.float16)
    m = nodes([helper.make_node("RotaryEmbedding", ["x", "at", "cos", "sin"], ["y"], domain="com.microsoft")],
              {"x": (F16, x.shape), "at": (I64, at.shape)}, {"y": (F16, x.shape)}, domains=MS, weights={"cos": COS, "sin": SIN})
    same(m, {"x": x, "at": at}, [half(rotate(x.astype(np.float32), np.arange(S)))], rtol=2e-3, atol=2e-3)
    q, scale = np.random.default_rng(1).integers(0, 256, (8, 1, 16), np.uint8), half(f32(8, 1))
    a = half(f32(3, 32))
    m = nodes([helper.make_node("MatMulNBits", ["a", "q", "s"], ["t"], domain="com.microsoft", K=32, N=8, bits=4, block_size=32),
               helper.make_node("Relu", ["t"], ["y"])], {"a": (F16, ["n", 32])}, {"y": (F16, ["n", 8])}, domains=MS, weights={"q": q, "s": scale})
    codes = np.stack([q & 15, q >> 4], -1).reshape(8, 32).astype(np.float32) - 8
    same(m, {"a": a}, [half(np.maximum(a.astype(np.float32) @ (codes * scale.astype(np.float32)).T, 0))], rtol=1e-2, atol=1e-2)


def device_layouts():
    """Weights and programs in another device's form are refused with what to do."""
    w, s = np.zeros((8, 1, 16), np.uint8), np.ones((8, 1), np.float32)
    for layout in (1, 2):
        m = nodes([helper.make_node("MatMulNBits", ["a", "q", "s"], ["y"], domain="com.microsoft", K=32, N=8, bits=4, block_size=32, weight_prepacked=layout)],
                  {"a": (F32, ["n", 32])}, {"y": (F32, ["n", 8])}, domains=MS, weights={"q": w, "s": s})
        refused(m, f"weight_prepacked is {layout}", "export with", code=4)
    m = nodes([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=1, ep_cache_context=b"\0")], {"x": (F32, [2])},
              {"y": (F32, [2])}, domains=MS)
    refused(m, "EPContext", "compile the model it was made from", code=4)
    rows = ["x", "p", "w1", "s1", "", "w2", "s2"]
    m = nodes([helper.make_node("QMoE", rows, ["y"], domain="com.microsoft", k=1, weights_prepacked=1)], {"x": (F32, [2, 32]), "p": (F32, [2, 2])},
              {"y": (F32, [2, 32])}, domains=MS, weights={"w1": np.zeros((2, 32, 16), np.uint8), "s1": np.ones((2, 32), np.float32),
                                                          "w2": np.zeros((2, 32, 16), np.uint8), "s2": np.ones((2, 32), np.float32)})
    refused(m, "weights_prepacked is 1", code=4)


def masked_rows():
    """Softmax of a row of -inf is NaN, the guard of exporters makes it 0; the smallest float as mask stays a mask in half precision."""
    m = text("""g (float[n, 4] x) => (float[n, 4] p, float[n, 4] y) { zero = Constant<value = float {0.0}>()
        p = Softmax(x)  bad = IsNaN(p)  y = Where(bad, zero, p) }""")
    x = f32(3, 4)
    x[1] = -np.inf
    x[2, 1:] = -np.inf
    got = same(m, {"x": x})
    assert np.isnan(got[0][1]).all() and not got[1][1].any()
    m = text("""g (float[2, n] s, bool[2, n] seen) => (float[2, n] p) { zero = Constant<value = float {0.0}>()
        b = Where(seen, zero, low)  t = Add(s, b)  p = Softmax(t) }""", weights={"low": np.float32(np.finfo(np.float32).min)})
    feeds = {"s": f32(2, 5), "seen": np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)}
    want = same(m, feeds, atol=1e-6)
    for precision in ("fp16", "bf16"):
        (p,) = run(m, feeds, precision=precision)
        equal([p[:1]], [want[0][:1]], rtol=2e-2, atol=1e-2)
        assert np.isfinite(p).all(), f"{precision}: the mask overflowed: {p}"


def casts_out_of_range():
    """Saturation of 8-bit floats and of their scales; integers wrap as numpy's do; NaN to bool is true."""
    x = np.float32([0, -0.0, 1.5, 448, 449, 470, 1e9, -1e9, np.inf, -np.inf, np.nan, 1e-9, -57344, 65536])
    for name, code in (("float8_e4m3fn", 17), ("float8_e5m2", 19)):
        kind = getattr(ml_dtypes, name)
        top = np.float32(ml_dtypes.finfo(kind).max)
        for saturate in (0, 1):
            m = text(f"g (float[n] x) => (float[n] y) {{ t = Cast<to = {code}, saturate = {saturate}>(x)  y = Cast<to = 1>(t) }}", opset=19)
            clipped = np.where(np.isnan(x), x, np.clip(x, -top, top)) if saturate else x
            same(m, {"x": x}, [clipped.astype(kind).astype(np.float32)])
    scales = np.float32([1, 1.5, 2, 3, 5.9, 0.3, 2.0**-100, 2.0**120])
    for mode, to in (("up", np.ceil), ("down", np.floor), ("nearest", lambda e: np.where(e - np.floor(e) >= np.log2(1.5) - 1e-9, np.ceil(e), np.floor(e)))):
        m = text(f'g (float[n] x) => (float[n] y) {{ t = Cast<to = 24, round_mode = "{mode}">(x)  y = Cast<to = 1>(t) }}', opset=24, ir=11)
        same(m, {"x": scales}, [np.exp2(to(np.log2(scales.astype(np.float64)))).astype(np.float32)])
    wide = np.int64([0, 255, 256, -1, 1 << 40, -(1 << 40) - 3, 1 << 31])
    for code, kind in ((2, np.uint8), (3, np.int8), (5, np.int16), (6, np.int32), (12, np.uint32)):
        m = nodes([helper.make_node("Cast", ["x"], ["y"], to=code)], {"x": (I64, ["n"])}, {"y": (code, ["n"])})
        same(m, {"x": wide}, [wide.astype(kind)])
    m = nodes([helper.make_node("Cast", ["x"], ["y"], to=9)], {"x": (F32, ["n"])}, {"y": (9, ["n"])})
    same(m, {"x": x}, [x.astype(bool)])
    for code in (3, 6, 7): # no fixed answer: any, but one and no fault
        m = nodes([helper.make_node("Cast", ["x"], ["y"], to=code)], {"x": (F32, ["n"])}, {"y": (code, ["n"])})
        assert run(m, {"x": x})[0][2] == 1
