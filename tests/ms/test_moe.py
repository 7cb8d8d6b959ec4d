"""Mixtures of experts."""
import sys

import ml_dtypes
import numpy as np

from oracle import case, choices, f32, main

RNG = np.random.default_rng(13)
E, D, I, TOKENS = 4, 32, 64, 7


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pack(codes, bits):
    per = 8 // bits
    codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], -codes.shape[-1] % per), np.uint8)], -1)
    full = codes.reshape(*codes.shape[:-1], -1, per)
    return sum(full[..., i] << (bits * i) for i in range(per)).astype(np.uint8)


def truth(x, weights, experts, act):
    """Sum over the experts of weight [T, E] times act(x fc1) fc2; experts: fc1, fc2 [E, rows, columns] in float64."""
    y = np.zeros((x.shape[0], experts[1].shape[1]))
    for e in range(weights.shape[1]):
        y += weights[:, e:e + 1] * (act(x @ experts[0][e].T) @ experts[1][e].T)
    return y.astype(np.float32)


def top_weights(logits, k):
    w = np.zeros(logits.shape)
    for t, row in enumerate(logits.astype(np.float64)):
        best = np.argsort(-row)[:k]
        e = np.exp(row[best] - row[best].max())
        w[t, best] = e / e.sum()
    return w


def moe():
    x, logits = f32(RNG, TOKENS, D), f32(RNG, TOKENS, E)
    fc1, fc2, fc3 = f32(RNG, E, I, D, scale=0.2), f32(RNG, E, D, I, scale=0.2), f32(RNG, E, I, D, scale=0.2)
    b1, b2, b3 = f32(RNG, E, I), f32(RNG, E, D), f32(RNG, E, I)
    for act in ("relu", "gelu", "silu", "identity"):
        for k in (1, 2):
            yield case("MoE", [x, logits, fc1, b1, fc2, b2], attrs={"k": k, "activation_type": act}, const=(2, 3, 4, 5), note=f"{act} {k}")
    yield case("MoE", [x.reshape(1, TOKENS, D), logits, fc1, None, fc2], attrs={"k": 2, "activation_type": "silu"}, const=(2, 4), note="3-D",
               symbols={TOKENS: "t"})
    wide, bw = f32(RNG, E, 2 * I, D, scale=0.2), f32(RNG, E, 2 * I)
    for norm in (0, 1):
        yield case("MoE", [x, logits, wide, bw, fc2, b2], const=(2, 3, 4, 5), note=f"swiglu normalise={norm}",
                   attrs={"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.702, "activation_beta": 1.0,
                          "swiglu_limit": 7.0, "normalize_routing_weights": norm})
    def gated(g, l):
        return g * sigmoid(g) * l
    pairs = [wide.astype(np.float64), fc2.astype(np.float64)]
    w = top_weights(logits, 2)
    yield case("MoE", [x, logits, wide, None, fc2], const=(2, 4), note="halves", attrs={"k": 2, "activation_type": "swiglu", "swiglu_fusion": 2, "normalize_routing_weights": 1},
               want=[truth(x, w, pairs, lambda h: gated(h[:, :I], h[:, I:]))])
    both = np.concatenate([fc1, fc3], 1).astype(np.float64)
    yield case("MoE", [x, logits, fc1, None, fc2, None, fc3], const=(2, 4, 6), note="three", attrs={"k": 2, "activation_type": "silu", "normalize_routing_weights": 1},
               want=[truth(x, w, [both, pairs[1]], lambda h: gated(h[:, :I], h[:, I:]))])
    yield case("MoE", [x, logits, fc1, b1, fc2, b2], attrs={"k": 2, "activation_type": "cubic"}, refused="cubic", note="unknown")
    mixed = np.zeros((TOKENS, E))
    for t, row in enumerate(logits.astype(np.float64)):
        left = row.copy()
        for _ in range(2):
            best = int(np.argmax(left))
            far = (left[best] - row) / np.maximum(np.abs(row), left[best]) > 0.02
            near = np.where(far, -np.inf, left)
            mixed[t, best] = 1 / np.exp(near - left[best]).sum()
            left[best] = -np.inf
    one = [fc1.astype(np.float64), fc2.astype(np.float64)]
    yield case("MoE", [x, logits, fc1, None, fc2], const=(2, 4), attrs={"k": 2, "activation_type": "relu", "use_sparse_mixer": 1},
               want=[truth(x, mixed, one, lambda h: np.maximum(h, 0))], note="sparse mixer")


def quantised(rows, columns, bits, block, zeros, experts=E):
    """Codes, scales, zero points as the operator wants them, and the weight in float64."""
    size = (experts, rows, columns // block if block else 1)
    codes, count = RNG.integers(0, 1 << bits, (experts, rows, columns)).astype(np.uint8), size[2]
    s = (RNG.random(size) * 0.02 + 0.005).astype(np.float32)
    z = RNG.integers(0, 1 << bits, size).astype(np.uint8) if zeros else np.full(size, 1 << (bits - 1), np.uint8)
    w = (codes.astype(np.float64) - np.repeat(z, columns // count, 2)) * np.repeat(s, columns // count, 2)
    packed = (pack(z, bits) if block else pack(z[..., 0], bits)) if zeros else None
    return pack(codes, bits), s if block else s[..., 0], packed, w


def qmoe():
    x, logits = f32(RNG, TOKENS, D), f32(RNG, TOKENS, E)
    for a in choices(bits=(4, 8), block=(0, 16, 32), zeros=(0, 1)):
        c1, s1, z1, w1 = quantised(2 * I, D, a["bits"], a["block"], a["zeros"])
        c2, s2, z2, w2 = quantised(D, I, a["bits"], a["block"], a["zeros"])
        attrs = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "expert_weight_bits": a["bits"], "weights_prepacked": 0}
        if a["block"]:
            attrs["block_size"] = a["block"]
        want = truth(x, top_weights(logits, 2), [w1, w2], lambda h: h[:, ::2] * sigmoid(h[:, ::2]) * h[:, 1::2])
        ins = [x, logits, c1, s1, None, c2, s2, None, None, None, None, z1, z2]
        const = (2, 3, 5, 6, 11, 12)
        yield case("QMoE", ins, attrs=attrs, const=const, want=[want], note=f"{a}", rtol=1e-3, atol=1e-4)
        if a["bits"] == 4 or not a["block"]: # there onnxruntime rounds activations to 8 bits
            yield case("QMoE", ins, attrs=attrs, const=const, note=f"{a} oracle", rtol=1e-3, atol=1e-3)
    routes = RNG.random((TOKENS, E)).astype(np.float32)
    for norm in (0, 1):
        w = np.where(top_weights(logits, 2) > 0, routes, 0.0)
        w = w / w.sum(1, keepdims=True) if norm else w
        want = truth(x, w, [w1, w2], lambda h: h[:, ::2] * sigmoid(h[:, ::2]) * h[:, 1::2])
        yield case("QMoE", [*ins, None, routes], attrs={**attrs, "normalize_routing_weights": norm}, const=const, want=[want],
                   note=f"routes normalise={norm}", rtol=1e-3, atol=1e-4)
    c1, s1, _, _ = quantised(2 * I, D, 4, 16, 0)
    c2, s2, _, _ = quantised(D, I, 4, 16, 0)
    for norm in (0, 1):
        yield case("QMoE", [x, logits, c1, s1, None, c2, s2] + [None] * 7 + [routes], const=(2, 3, 5, 6), rtol=1e-3, atol=1e-3,
                   attrs={**attrs, "expert_weight_bits": 4, "block_size": 16, "normalize_routing_weights": norm}, note=f"routes oracle {norm}")
    yield case("QMoE", ins, attrs={**attrs, "weights_prepacked": 1}, const=const, refused="weights_prepacked", note="prepacked")


def few_rows():
    """Fewer rows than experts: kernels walk rows, and the weights of experts that no row asks for are not looked at."""
    many = 24
    attrs = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "expert_weight_bits": 4, "block_size": 16, "weights_prepacked": 0}
    c1, s1, z1, w1 = quantised(2 * I, D, 4, 16, 1, many)
    c2, s2, z2, w2 = quantised(D, I, 4, 16, 1, many)
    for tokens in (1, 3):
        x, logits = f32(RNG, tokens, D), f32(RNG, tokens, many)
        idle = np.setdiff1d(np.arange(many), np.argsort(-logits, 1)[:, :2])
        a1, a2 = s1.copy(), s2.copy()
        a1[idle] = a2[idle] = np.nan
        ins = [x, logits, c1, a1, None, c2, a2, None, None, None, None, z1, z2]
        want = truth(x, top_weights(logits, 2), [w1, w2], lambda h: h[:, ::2] * sigmoid(h[:, ::2]) * h[:, 1::2])
        yield case("QMoE", ins, attrs=attrs, const=(2, 3, 5, 6, 11, 12), want=[want],
                   note=f"{tokens} tokens, {many} experts", rtol=1e-3, atol=1e-4)


def narrow_floats():
    x, logits = f32(RNG, TOKENS, D), f32(RNG, TOKENS, E)
    top = top_weights(logits, 2)
    a = {"k": 2, "activation_type": "relu", "weights_prepacked": 0}
    w1, w2 = (f32(RNG, E, *s).astype(ml_dtypes.float8_e4m3fn) for s in ((I, D), (D, I)))
    s1, s2 = (RNG.random((E, I // 16, D // 16)) * 0.1).astype(np.float32), (RNG.random((E, D // 16, I // 16)) * 0.1).astype(np.float32)
    wide = [w.astype(np.float64) * np.repeat(np.repeat(s, 16, 1), 16, 2) for w, s in ((w1, s1), (w2, s2))]
    yield case("QMoE", [x, logits, w1, s1, None, w2, s2], attrs={**a, "quant_type": "fp8", "block_size": 16}, const=(2, 3, 5, 6), note="fp8",
               want=[truth(x, top, wide, lambda h: np.maximum(h, 0))], rtol=1e-3)
    values = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6])
    c1, c2 = (RNG.integers(0, 16, (E, *s)).astype(np.uint8) for s in ((I, D), (D, I)))
    s1, s2 = ((RNG.random((E, *s)) + 0.1).astype(ml_dtypes.float8_e4m3fn) for s in ((I, D // 16), (D, I // 16)))
    g = (RNG.random(E) * 0.1).astype(np.float32)
    wide = [values[c] * np.repeat(s.astype(np.float64), 16, 2) * g[:, None, None] for c, s in ((c1, s1), (c2, s2))]
    ins = [x, logits, pack(c1, 4), s1, None, pack(c2, 4), s2] + [None] * 8 + [g, g]
    yield case("QMoE", ins, attrs={**a, "quant_type": "nvfp4"}, const=(2, 3, 5, 6, 15, 16), note="nvfp4", rtol=1e-3,
               want=[truth(x, top, wide, lambda h: np.maximum(h, 0))])


if __name__ == "__main__":
    sys.exit(main([*moe(), *qmoe(), *few_rows(), *narrow_floats()]))
