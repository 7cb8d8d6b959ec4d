"""Normalisations, activations, convolutions, embeddings, positions and text operators of com.microsoft; refusals."""
import math
import sys

import ml_dtypes
import numpy as np

from oracle import BF16, case, choices, f32, i8, main

RNG = np.random.default_rng(14)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def embeddings():
    ids, segments = RNG.integers(0, 20, (2, 6)).astype(np.int32), RNG.integers(0, 2, (2, 6)).astype(np.int32)
    words, places, kinds = f32(RNG, 20, 8), f32(RNG, 10, 8), f32(RNG, 2, 8)
    gamma, beta = f32(RNG, 8), f32(RNG, 8)
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 1, 0]], np.int32)
    order = RNG.integers(0, 10, (2, 6)).astype(np.int32)
    tables = (2, 3, 4, 5, 6)
    t = [np.float32, np.int32]
    yield case("EmbedLayerNormalization", [ids, segments, words, places, kinds, gamma, beta, mask], const=tables, outputs=("y", "index"), types=t)
    yield case("EmbedLayerNormalization", [ids, None, words, places, None, gamma, beta], const=tables, outputs=("y", "index"), types=t, note="few")
    yield case("EmbedLayerNormalization", [ids, segments, words, places, kinds, gamma, beta, None, order], const=tables, attrs={"epsilon": 1e-3},
               outputs=("y", "index", "sum"), types=[*t, np.float32], note="positions", symbols={2: "b", 6: "s"})
    yield case("ATen", [words, ids.astype(np.int64)], attrs={"operator": "embedding"}, domain="org.pytorch.aten", const=(0,), want=[words[ids]])
    yield case("ATen", [words], attrs={"operator": "sort"}, domain="org.pytorch.aten", refused="'sort' of PyTorch", note="sort")


def convolutions():
    x, w, bias = f32(RNG, 1, 4, 7, 6), f32(RNG, 6, 4, 3, 3, scale=0.3), f32(RNG, 6)
    z = f32(RNG, 1, 6, 7, 6)
    a = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    for act, params in (("Relu", None), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.7]), ("HardSigmoid", [0.3, 0.4]), ("Tanh", None), ("Sigmoid", None)):
        more = {"activation_params": params} if params else {}
        yield case("FusedConv", [x, w, bias], attrs={**a, "activation": act, **more}, const=(1, 2), note=act)
    yield case("FusedConv", [x, w, bias, z], attrs={**a, "activation": "Relu"}, const=(1, 2), note="sum")
    last = x.transpose(0, 2, 3, 1)
    base = case("FusedConv", [x, w, bias], attrs=a)
    import onnxruntime as ort
    from oracle import build, reference, output_types
    model, feeds = build(base, output_types(base))
    y = reference(model, base, feeds)[0]
    yield case("NhwcConv", [last, w, bias], attrs=a, const=(1, 2), want=[np.ascontiguousarray(y.transpose(0, 2, 3, 1))])
    full = np.maximum(y + z, 0).transpose(0, 2, 3, 1)
    yield case("NhwcFusedConv", [last, w, bias, z.transpose(0, 2, 3, 1)], attrs={**a, "activation": "Relu"}, const=(1, 2),
               want=[np.ascontiguousarray(full)])
    yield case("Conv", [last, w, bias], attrs=a, const=(1, 2), domain="com.ms.internal.nhwc", want=[np.ascontiguousarray(y.transpose(0, 2, 3, 1))])
    yield case("GlobalAveragePool", [last], domain="com.ms.internal.nhwc", want=[last.mean((1, 2), keepdims=True, dtype=np.float32)])
    yield case("MaxPool", [last], attrs={"kernel_shape": [2, 2]}, domain="com.ms.internal.nhwc",
               want=[np.max([last[:, i:i + 6, j:j + 5] for i in (0, 1) for j in (0, 1)], 0)])


def products():
    a, b, c = f32(RNG, 5, 8), f32(RNG, 8, 6), f32(RNG, 6)
    for act, more in (("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.3}), ("Tanh", {}), ("Sigmoid", {}), ("Elu", {"activation_alpha": 0.7}),
                      ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.6}), ("Softplus", {})):
        yield case("FusedGemm", [a, b, c], attrs={"activation": act, "alpha": 0.5, **more}, const=(1, 2), note=act)
    yield case("FusedGemm", [a.T, b.T], attrs={"activation": "Relu", "transA": 1, "transB": 1}, const=(1,), note="transposed")
    yield case("GemmFastGelu", [a, b, c], const=(1, 2), want=[tanh_gelu(a @ b + c)])
    for f in choices(transA=(0, 1), transB=(0, 1), transBatchA=(0, 1), transBatchB=(0, 1)):
        x = f32(RNG, 3, 5, 8)
        x = x.swapaxes(1, 2) if f["transA"] else x
        x = np.moveaxis(x, 0, 1) if f["transBatchA"] else x
        y = f32(RNG, 3, 8, 6)
        y = y.swapaxes(1, 2) if f["transB"] else y
        y = np.moveaxis(y, 0, 1) if f["transBatchB"] else y
        yield case("FusedMatMul", [np.ascontiguousarray(x), np.ascontiguousarray(y)], attrs={**f, "alpha": 0.25}, note=str(list(f.values())))
    x, y = f32(RNG, 2, 5, 8), f32(RNG, 2, 8, 6)
    yield case("FusedMatMulActivation", [x, y], attrs={"activation": "Relu", "alpha": 0.5}, want=[np.maximum(x @ y * np.float32(0.5), 0)])
    s = x @ y
    e = np.exp(s - s.max(-1, keepdims=True))
    yield case("FusedMatMulActivation", [x, y], attrs={"activation": "Softmax", "activation_axis": -1}, want=[e / e.sum(-1, keepdims=True)], note="softmax")


def norms():
    x, gamma, beta = f32(RNG, 2, 3, 4, 8), f32(RNG, 8), f32(RNG, 8)
    def group(v, act):
        g = v.reshape(2, 12, 4, 2).astype(np.float64)
        n = (g - g.mean((1, 3), keepdims=True)) / np.sqrt(g.var((1, 3), keepdims=True) + 1e-5)
        y = n.reshape(v.shape) * gamma + beta
        return (y * sigmoid(y) if act else y).astype(np.float32)
    for act in (0, 1):
        a = {"groups": 4, "activation": act, "epsilon": 1e-5}
        yield case("GroupNorm", [x, gamma, beta], attrs=a, const=(1, 2), want=[group(x, act)], note=str(act))
        first = x.transpose(0, 3, 1, 2)
        yield case("GroupNorm", [first, gamma, beta], attrs={**a, "channels_last": 0}, const=(1, 2), want=[group(x, act).transpose(0, 3, 1, 2)],
                   note=f"{act} first")
    skip, bias, row = f32(RNG, 2, 3, 4, 8), f32(RNG, 8), f32(RNG, 2, 8)
    yield case("SkipGroupNorm", [x, gamma, beta, skip, bias], attrs=a, const=(1, 2, 4), outputs=("y", "s"),
               want=[group(x + skip + bias, 1), x + skip + bias], rtol=1e-3)
    total = x + row[:, None, None]
    yield case("SkipGroupNorm", [x, gamma, beta, row], attrs=a, const=(1, 2), outputs=("y", "s"), want=[group(total, 1), total], note="rows", rtol=1e-3)
    skip = f32(RNG, 3, 4, 8)
    for op, ins in (("SkipLayerNormalization", [x[0], skip, gamma, beta, bias]), ("SkipSimplifiedLayerNormalization", [x[0], skip, gamma, bias])):
        yield case(op, ins, const=tuple(range(2, len(ins))), outputs=("y", "", "", "sum"), note="bias")
    yield case("SkipLayerNormalization", [f32(RNG, 3, 4, 8), f32(RNG, 4, 8), gamma, beta], const=(2, 3), note="shared skip")
    yield case("QuickGelu", [x])
    yield case("BiasGelu", [x, bias], const=(1,))
    yield case("FastGelu", [x, bias], const=(1,), rtol=1e-3)
    yield case("BiasAdd", [x[0], bias, skip], const=(1,), want=[x[0] + bias + skip])
    left, right = np.split(x[0] + bias, 2, -1)
    yield case("BiasSplitGelu", [x[0], bias], const=(1,), want=[(left * erf_gelu(right.astype(np.float64))).astype(np.float32)])
    gate = f32(RNG, 3, 4, 1)
    yield case("GatedAdd", [x[0], skip, gate], want=[x[0] + skip * gate])
    wide = f32(RNG, 2, 3, 4, 5)
    for b, axis, inner in ((f32(RNG, 2, 1, 4, 5), 2, 1), (f32(RNG, 1, 1, 4, 5), 3, 0)):
        s = (wide + b).reshape(wide.shape[:axis] + (-1,)).astype(np.float64)
        e = np.exp(s - s.max(-1, keepdims=True))
        yield case("BiasSoftmax", [wide, b], attrs={"axis": axis, "is_inner_broadcast": inner}, note=str(axis),
                   want=[(e / e.sum(-1, keepdims=True)).reshape(wide.shape).astype(np.float32)])
    yield case("BiasDropout", [x[0], bias, skip], const=(1,), want=[x[0] + bias + skip])


def positions():
    table = f32(RNG, 32, 3)
    for both in (0, 1):
        q, k = 9, 9
        rel = np.arange(k)[None] - np.arange(q)[:, None]
        n, bucket = (16, (rel > 0) * 16) if both else (32, 0)
        d = np.abs(rel) if both else np.maximum(-rel, 0)
        far = n // 2 + (np.log(np.maximum(d, 1) / (n // 2)) / math.log(20 / (n // 2)) * (n - n // 2)).astype(np.int64)
        at = bucket + np.where(d < n // 2, d, np.minimum(far, n - 1))
        yield case("RelativePositionBias", [table, np.array(q, np.int64), np.array(k, np.int64)], attrs={"is_bidirectional": both, "max_distance": 20},
                   const=(0,), want=[table[at].transpose(2, 0, 1)[None]], note=str(both))
    n, h, s, d = 2, 4, 5, 6
    q, qb, rel, w, wb, eco = f32(RNG, 1, s, n * h), f32(RNG, n * h), f32(RNG, 1, n, s, s), f32(RNG, h, d), f32(RNG, d), f32(RNG, 1, n, 1, 1)
    x = (q + qb).reshape(1, s, n, h).transpose(0, 2, 1, 3)
    g = sigmoid((x @ w + wb).reshape(1, n, s, 2, d // 2).sum(-1))
    u, r = g[..., :1], g[..., 1:]
    yield case("GatedRelativePositionBias", [q, qb, rel, w, wb, eco], attrs={"num_heads": n}, const=(1, 3, 4, 5),
               want=[((u * (r * eco - 1) + 2) * rel).astype(np.float32)])
    cos, sin = f32(RNG, 12, 4), f32(RNG, 12, 4)
    ids = RNG.integers(0, 12, (3, 2, s)).astype(np.int64)
    for layout, inter, rank in ((0, 0, 4), (0, 1, 4), (1, 0, 4), (0, 0, 3)):
        v = f32(RNG, 2, 3, s, 8)
        v = np.ascontiguousarray(v.transpose(0, 2, 1, 3)).reshape(2, s, 24) if rank == 3 else v
        yield case("MRotaryEmbedding", [v, ids, cos, sin], attrs={"mrope_section": [2, 1, 1], "mrope_layout": layout, "interleaved": inter,
                                                               "num_heads": 3 if rank == 3 else 0},
                   const=(2, 3), note=f"{layout}{inter}{rank}")
    ids = np.array([[3, 1, 4, 1, 5, 3, 1], [2, 2, 2, 2, 2, 2, 2]], np.int64)
    for size in (1, 2, 3):
        yield case("NGramRepeatBlock", [ids, f32(RNG, 2, 8)], attrs={"ngram_size": size}, types=[np.float32], note=str(size))
    yield case("NGramRepeatBlock", [ids, f32(RNG, 2, 8)], attrs={"ngram_size": 3}, types=[np.float32], symbols={7: "s"}, note="symbolic")


def spectra():
    x = f32(RNG, 2, 3, 16)
    y = np.fft.rfft(x)
    pairs = np.stack([y.real, y.imag], -1).astype(np.float32)
    yield case("Rfft", [x], attrs={"signal_ndim": 1, "onesided": 1, "normalized": 0}, want=[pairs], atol=1e-4)
    yield case("Irfft", [pairs], attrs={"signal_ndim": 1, "onesided": 1, "normalized": 0}, want=[x], atol=1e-4)
    a, b = f32(RNG, 3, 4, 2), f32(RNG, 3, 4, 2)
    p, q = a[..., 0] + 1j * a[..., 1], b[..., 0] + 1j * b[..., 1]
    for op, y in (("ComplexMul", p * q), ("ComplexMulConj", p * q.conj())):
        yield case(op, [a, b], want=[np.stack([y.real, y.imag], -1).astype(np.float32)])


def block_floats():
    n, k = 6, 64
    a = f32(RNG, 3, k).astype(np.float16)
    w, s = f32(RNG, n, k).astype(ml_dtypes.float8_e4m3fn), (RNG.random((n, 2)) + 0.1).astype(np.float32)
    y = a.astype(np.float64) @ (w.astype(np.float64) * np.repeat(s, 32, 1)).T
    yield case("MatMulBlockQuantizedFp8Weight", [a, w, s], attrs={"block_size": 32}, const=(1, 2), want=[y.astype(np.float16)], rtol=1e-2, atol=2e-2)
    codes = RNG.integers(0, 16, (n, k)).astype(np.uint8)
    values = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6])
    s = (RNG.random((n, k // 16)) + 0.1).astype(ml_dtypes.float8_e4m3fn)
    y = a.astype(np.float64) @ (values[codes] * np.repeat(s.astype(np.float64), 16, 1) * 0.25).T
    yield case("MatMulBlockQuantizedFp4Weight", [a, codes[:, ::2] | codes[:, 1::2] << 4, s.view(np.uint8), np.float32(0.25)], const=(1, 2, 3),
               want=[y.astype(np.float16)], rtol=1e-2, atol=3e-2)


def refusals():
    x = f32(RNG, 2, 3)
    for op, words in (("EPContext", "another device"), ("MatMulFpQ4", "MatMulNBits"), ("GreedySearch", "decoder subgraph"), ("Tokenizer", "tokenise")):
        yield case(op, [x], refused=words)
    yield case("BertTokenizer", [x], domain="ai.onnx.contrib", refused="onnxruntime-extensions")
    yield case("Conv", [x], domain="com.microsoft.nchwc", refused="one CPU family", note="blocked")


if __name__ == "__main__":
    sys.exit(main([*embeddings(), *convolutions(), *products(), *norms(), *positions(), *spectra(), *block_floats(), *refusals()]))
