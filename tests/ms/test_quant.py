"""Quantised operators of com.microsoft."""
import sys

import ml_dtypes
import numpy as np

from oracle import case, choices, f32, i8, main

RNG = np.random.default_rng(11)
S = np.float32


def scale(v):
    return np.array(v, np.float32)


def zero(v, dtype):
    return np.array(v, dtype)


def weights(*shape, dtype=np.int8):
    """Codes of 7 bits: onnxruntime's product of uint8 and int8 saturates at 16 bits on CPUs without VNNI."""
    return (i8(RNG, *shape, dtype=dtype).astype(np.int16) // 2 + (64 if dtype == np.uint8 else 0)).astype(dtype)


def qlinear():
    for t in (np.uint8, np.int8):
        z = 120 if t == np.uint8 else -7
        a, b = i8(RNG, 3, 1, 8, dtype=t), i8(RNG, 4, 8, dtype=t)
        q = [a, scale(0.03), zero(z, t), b, scale(0.05), zero(3, t), scale(0.11), zero(z - 2, t)]
        for op in ("QLinearAdd", "QLinearMul"):
            yield case(op, q, note=t.__name__)
            x, y = a.astype(np.float32) * S(0.03), b.astype(np.float32) * S(0.05)
            z0 = np.rint((x + y if op == "QLinearAdd" else x * y) / S(0.2))
            yield case(op, [a, scale(0.03), None, b, scale(0.05), None, scale(0.2), None], note=f"{t.__name__} no zeros",
                       want=[np.clip(z0, np.iinfo(t).min, np.iinfo(t).max).astype(t)])
        one = [a, scale(0.04), zero(z, t), scale(0.008), zero(z - 9, t)]
        yield case("QLinearSigmoid", one, const=(1, 2, 3, 4), note=t.__name__)
        yield case("QLinearLeakyRelu", one, attrs={"alpha": 0.3}, const=(1, 2, 3, 4), note=t.__name__)
        x = i8(RNG, 2, 5, 4, 6, dtype=t)
        soft = [x, scale(0.05), zero(z, t), scale(1 / 256), zero(0 if t == np.uint8 else -128, t)]
        for a in ({"axis": -1, "opset": 13}, {"axis": 1, "opset": 13}, {"axis": 1, "opset": 12}):
            yield case("QLinearSoftmax", soft, attrs=a, const=(1, 2, 3, 4), note=f"{t.__name__} {a}")
        for last in (0, 1):
            pool = [x, scale(0.05), zero(z, t), scale(0.03), zero(z + 1, t)]
            yield case("QLinearGlobalAveragePool", pool, attrs={"channels_last": last}, note=f"{t.__name__} last={last}")
            for a in ({"kernel_shape": [2, 3]}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
                      {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1}):
                if last and t == np.int8:
                    continue # not in the oracle
                yield case("QLinearAveragePool", pool, attrs={"channels_last": last, **a}, note=f"{t.__name__} last={last} {a}")
        data = (x.astype(np.float32) - z) * S(0.05)
        mean = np.clip(np.rint(data.mean((1, 3), keepdims=True, dtype=np.float32) / S(0.02)) + z, np.iinfo(t).min, np.iinfo(t).max)
        yield case("QLinearReduceMean", [x, scale(0.05), zero(z, t), scale(0.02), zero(z, t)],
                   attrs={"axes": [1, 3], "keepdims": 1}, want=[mean.astype(t)], note=t.__name__)
        y = i8(RNG, 2, 3, 4, 6, dtype=t)
        parts = [scale(0.07), zero(z, t), x[:, :3], scale(0.05), zero(1, t), y, scale(0.07), zero(z, t)]
        yield case("QLinearConcat", parts, attrs={"axis": 1}, const=(0, 1, 3, 4, 6, 7), note=t.__name__, types=[t])
        cond = RNG.random((2, 1, 4, 6)) < 0.5
        yield case("QLinearWhere", [cond, x, scale(0.05), zero(1, t), x[:, :1], scale(0.02), zero(4, t), scale(0.06), zero(9, t)],
                   const=(2, 3, 5, 6, 7, 8), note=t.__name__, types=[t])


def conv():
    for t, last in ((np.uint8, 0), (np.uint8, 1), (np.int8, 1)):
        x = i8(RNG, 1, 4, 7, 6, dtype=t)
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if last else x
        w = weights(6, 4, 3, 3)
        ins = [x, scale(0.02), zero(5, t), w, scale(0.01), zero(0, np.int8), scale(0.4), zero(7, t),
               RNG.integers(-500, 500, 6).astype(np.int32)]
        yield case("QLinearConv", ins, attrs={"channels_last": last, "pads": [1, 1, 1, 1], "strides": [2, 1]},
                   const=tuple(range(1, 9)), note=f"{t.__name__} last={last}")


def products():
    for a in choices(transA=(0, 1), transB=(0, 1)):
        x = i8(RNG, 8, 5, dtype=np.uint8) if a["transA"] else i8(RNG, 5, 8, dtype=np.uint8)
        w = weights(7, 8) if a["transB"] else weights(8, 7)
        for bias, quantised, columns in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1)):
            c = RNG.integers(-900, 900, 7).astype(np.int32) if bias else None
            bs = (RNG.random(7) * 0.02 + 0.01).astype(np.float32) if columns else scale(0.02)
            bz = np.zeros(7, np.int8) if columns else zero(0, np.int8)
            y = [scale(0.9), zero(100, np.uint8)] if quantised else [None, None]
            yield case("QGemm", [x, scale(0.03), zero(128, np.uint8), w, bs, bz, c, *y], attrs={**a, "alpha": 1.0},
                       const=(1, 2, 3, 4, 5, 6, 7, 8), types=[np.uint8 if quantised else np.float32],
                       note=f"{a} {bias}{quantised}{columns}")
    for t in (np.int8, np.uint8):
        x, w = f32(RNG, 2, 3, 16), weights(16, 6, dtype=t)
        z = 0 if t == np.int8 else 128
        columns = (RNG.random(6) * 0.05).astype(np.float32)
        yield case("DynamicQuantizeMatMul", [x, w, columns, np.full(6, z, t), f32(RNG, 6)], const=(1, 2, 3, 4), atol=1e-3,
                   note=f"{t.__name__} columns")
        yield case("DynamicQuantizeMatMul", [x, w, scale(0.05), zero(z, t), None], const=(1, 2, 3), atol=1e-3, note=t.__name__)
        yield case("DynamicQuantizeMatMul", [x, w, scale([0.05])], const=(1, 2), atol=1e-3, note=f"{t.__name__} no zero",
                   symbols={2: "b", 3: "s"})
        for bias in (0, 1):
            b = f32(RNG, 6) if bias else None
            xq = i8(RNG, 2, 3, 16, dtype=np.uint8)
            yield case("MatMulIntegerToFloat", [xq, w, scale(0.02), columns, zero(7, np.uint8), np.full(6, z, t), b],
                       const=(1, 3, 5), types=[np.float32], note=f"{t.__name__} {bias}")
    yield case("MatMulInteger16", [RNG.integers(-900, 900, (3, 7)).astype(np.int16), RNG.integers(-900, 900, (7, 4)).astype(np.int16)],
               types=[np.int32])
    a, b = i8(RNG, 3, 4), i8(RNG, 4)
    yield case("MulInteger", [a, zero(3, np.int8), b, zero(-2, np.int8)], want=[(a.astype(np.int32) - 3) * (b.astype(np.int32) + 2)])
    yield case("ReduceSumInteger", [a], attrs={"axes": [1], "keepdims": 0}, want=[a.astype(np.int32).sum(1, dtype=np.int32)])


def pack(codes, bits):
    """uint8 codes [.., K] with several in a byte, low bits first."""
    per = 8 // bits
    full = np.zeros((*codes.shape[:-1], -(-codes.shape[-1] // per) * per), np.uint8)
    full[..., :codes.shape[-1]] = codes
    full = full.reshape(*full.shape[:-1], -1, per)
    return sum(full[..., i] << (bits * i) for i in range(per)).astype(np.uint8)


def nbits():
    n, k = 24, 64
    x = f32(RNG, 2, 5, k)
    for bits in (2, 4, 8):
        for block in (16, 32):
            codes = RNG.integers(0, 1 << bits, (n, k)).astype(np.uint8)
            w = pack(codes.reshape(n, k // block, block), bits)
            s = (RNG.random((n, k // block)) * 0.1 + 0.01).astype(np.float32)
            zeros = RNG.integers(0, 1 << bits, (n, k // block)).astype(np.uint8)
            a = {"K": k, "N": n, "bits": bits, "block_size": block}
            def truth(z, groups=None, bias=0.0):
                g = np.arange(k) // block if groups is None else groups
                return [(x.astype(np.float64) @ ((codes.astype(np.float64) - z[:, g]) * s[:, g]).T + bias).astype(np.float32)]
            half = np.full(zeros.shape, float(1 << (bits - 1)))
            bias = f32(RNG, n)
            yield case("MatMulNBits", [x, w, s], attrs=a, const=(1, 2), want=truth(half), note=f"{bits} {block}")
            yield case("MatMulNBits", [x, w, s, pack(zeros, bits), None, bias], attrs=a, const=(1, 2, 3, 5), want=truth(zeros, bias=bias),
                       note=f"{bits} {block} zeros bias")
            real = (zeros + 0.25).astype(np.float32)
            yield case("MatMulNBits", [x, w, s, real], attrs=a, const=(1, 2, 3), want=truth(real), note=f"{bits} {block} float zeros")
            groups = RNG.integers(0, k // block, k).astype(np.int32)
            yield case("MatMulNBits", [x, w, s, pack(zeros, bits), groups], attrs=a, const=(1, 2, 3, 4), want=truth(zeros, groups),
                       note=f"{bits} {block} groups")
    yield case("MatMulNBits", [x, w, s], attrs={**a, "weight_prepacked": 1}, const=(1, 2), refused="weight_prepacked", note="prepacked")
    for trans in (1, 0):
        for kind in (0, 1):
            w = RNG.integers(0, 256, n * k // 2).astype(np.uint8)
            s = (RNG.random(n * k // 16) * 0.1 + 0.01).astype(np.float32)
            if trans:
                yield case("MatMulBnb4", [x, w, s], attrs={"K": k, "N": n, "block_size": 16, "quant_type": kind}, const=(1, 2),
                           note=f"kind={kind}", atol=1e-4)
    a = {"K": k, "N": n, "bits": 4, "block_size": 32}
    ws = [pack(RNG.integers(0, 16, (n, 2, 32)).astype(np.uint8), 4) for _ in range(3)]
    ss = [(RNG.random((n, 2)) * 0.1 + 0.01).astype(np.float32) for _ in range(3)]
    dense = [((np.stack([w & 15, w >> 4], -1).reshape(n, k).astype(np.float64) - 8) * np.repeat(s, 32, 1)).T for w, s in zip(ws, ss)]
    norm, skip = f32(RNG, k) + 1, f32(RNG, 2, 5, k)
    total = x.astype(np.float64) + skip
    h = total / np.sqrt((total ** 2).mean(-1, keepdims=True) + 1e-5) * norm
    gate, up = h @ dense[0], h @ dense[1]
    yield case("MatMulNBitsMlp", [x, skip, norm, ws[0], ss[0], None, ws[1], ss[1]], attrs={**a, "activation": "silu"}, const=(2, 3, 4, 6, 7),
               outputs=("y", "sum"), want=[(gate / (1 + np.exp(-gate)) * up).astype(np.float32), total.astype(np.float32)], rtol=1e-3)
    bias = f32(RNG, n)
    yield case("MatMulNBitsQkv", [x, skip, norm, ws[0], ss[0], bias, ws[1], ss[1], None, ws[2], ss[2]], outputs=("q", "k", "v", "sum"),
               attrs={"K": k, "Nq": n, "Nkv": n, "bits": 4, "block_size": 32}, const=(2, 3, 4, 5, 6, 7, 9, 10), rtol=1e-3,
               want=[(h @ dense[0] + bias).astype(np.float32), up.astype(np.float32), (h @ dense[2]).astype(np.float32), total.astype(np.float32)])


def gathers():
    ids = np.array([[0, 5, 3], [9, -1, 2]], np.int64)
    for bits in (2, 4, 8):
        codes = RNG.integers(0, 1 << bits, (12, 64)).astype(np.uint8)
        s = (RNG.random((12, 2)) * 0.1).astype(np.float32)
        zeros = RNG.integers(0, 1 << bits, (12, 2)).astype(np.uint8)
        a = {"bits": bits, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        for z in (0, 1):
            ins = [pack(codes, bits), ids, s, *([pack(zeros, bits)] if z else [])]
            w = (codes.astype(np.float32) - (np.repeat(zeros, 32, 1) if z else 1 << (bits - 1))) * np.repeat(s, 32, 1)
            yield case("GatherBlockQuantized", ins, attrs=a, const=(0, 2, 3), want=[w[ids].astype(np.float32)], note=f"u8 {bits} {z}")
    few = np.array([1, 0], np.int32)
    for t, lo, hi in ((ml_dtypes.int4, -8, 8), (ml_dtypes.uint4, 0, 16)):
        codes = RNG.integers(lo, hi, (12, 6, 32)).astype(np.int8)
        zeros = RNG.integers(lo, hi, (12, 6, 2)).astype(np.int8)
        s = (RNG.random((12, 6, 2)) * 0.1).astype(np.float32)
        for axis, i in ((0, ids), (1, few)):
            for z in (0, 1):
                w = ((codes - np.repeat(zeros if z else 0 * zeros, 16, 2)) * np.repeat(s, 16, 2)).astype(np.float32)
                yield case("GatherBlockQuantized", [codes.astype(t), i, s, *([zeros.astype(t)] if z else [])], const=(0, 2, 3),
                           attrs={"block_size": 16, "gather_axis": axis, "quantize_axis": 2}, want=[np.take(w, i, axis)],
                           note=f"{t.__name__} axis={axis} {z}")
    for t in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn):
        w, i = f32(RNG, 12, 32).astype(t), np.array([3, 11, 0], np.int64)
        for block, s in ((16, (12, 2)), (16, (1, 2)), (0, (12, 1)), (0, (1, 1))):
            s = (RNG.random(s) + 0.1).astype(np.float32)
            wide = np.repeat(np.broadcast_to(s, (12, s.shape[1])), 32 // s.shape[1], 1)
            yield case("GatherBlockQuantized", [w, i, s], attrs={"block_size": block, "gather_axis": 0, "quantize_axis": 1}, const=(0, 2),
                       want=[(w.astype(np.float32) * wide)[i]], note=f"{t.__name__} {block} {s.shape}")


if __name__ == "__main__":
    sys.exit(main([*qlinear(), *conv(), *products(), *nbits(), *gathers()]))
