"""Attention operators of com.microsoft, in every form of masks, operands and caches."""
import sys

import numpy as np

from oracle import case, f32, i8, main

RNG = np.random.default_rng(12)
N, H, D = 2, 8, 16 # heads, size of a head, both


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def heads(x, n=N):
    """[B, S, n * H] -> [B, n, S, H]"""
    return x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)


def attend(q, k, v, bias=0.0, scale=None):
    """[B, n, S, H] each, in float64 -> [B, S, n * H]"""
    s = q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2) * (scale or q.shape[-1] ** -0.5) + bias
    y = softmax(s) @ v.astype(np.float64)
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1).astype(np.float32)


def masks(b, s, past):
    t = s + past
    yield "none", None
    yield "ends", np.array([t - 1, t - 2][:b], np.int32)
    if not past:
        yield "ends and starts", np.array([t, t - 1, 1, 0], np.int32)
    keys = np.ones((b, t), np.int32)
    keys[0, -2:] = 0
    yield "keys", keys
    rows = (RNG.random((b, s, t)) < 0.7).astype(np.int32)
    rows[..., 0] = 1
    yield "rows", rows


def attention():
    b, s = 2, 5
    w, bias = f32(RNG, 12, 3 * D, scale=0.4), f32(RNG, 3 * D)
    for past in (0, 3):
        x = f32(RNG, b, s, 12)
        kv = f32(RNG, 2, b, N, past, H) if past else None
        for name, mask in masks(b, s, past):
            for uni in (0, 1):
                outs = ("y", "present") if past else ("y",)
                yield case("Attention", [x, w, bias, mask, kv], attrs={"num_heads": N, "unidirectional": uni}, const=(1, 2), outputs=outs,
                           note=f"{name} past={past} uni={uni}", symbols={5: "s"} if name in ("none", "keys") and not past else {})
    add = f32(RNG, 1, N, s, s)
    yield case("Attention", [f32(RNG, b, s, 12), w, bias, None, None, add], attrs={"num_heads": N, "scale": 0.3}, const=(1, 2), note="bias")
    wide = f32(RNG, 12, 2 * D + 24, scale=0.4)
    yield case("Attention", [f32(RNG, b, s, 12), wide, f32(RNG, 2 * D + 24)], const=(1, 2), note="value of other width",
               attrs={"num_heads": N, "qkv_hidden_sizes": [D, D, 24]})
    x, wq = i8(RNG, b, s, 12, dtype=np.uint8), (i8(RNG, 12, 3 * D).astype(np.int16) // 2).astype(np.int8)
    for name, mask in masks(b, s, 0):
        if name in ("none", "ends", "keys"):
            yield case("QAttention", [x, wq, bias, np.float32(0.02), np.float32(0.01), mask, np.uint8(120), np.int8(0)], types=[np.float32],
                       attrs={"num_heads": N}, const=(1, 2, 3, 4, 6, 7), note=name, atol=1e-4)
    yield case("QAttention", [x, wq, bias, np.float32(0.02), np.full(3 * D, 0.01, np.float32), None, np.uint8(120), np.zeros(3 * D, np.int8),
                              f32(RNG, 2, b, N, 4, H)], types=[np.float32] * 2, const=(1, 2, 3, 4, 6, 7), atol=1e-4,
               attrs={"num_heads": N, "unidirectional": 1}, outputs=("y", "present"), note="columns past")
    yield case("Attention", [x.astype(np.float32), w, bias], attrs={"num_heads": N, "do_rotary": 1}, refused="do_rotary", note="rotary")


def multi_head():
    b, s = 2, 5
    q, k, v, bias = f32(RNG, b, s, D), f32(RNG, b, 7, D), f32(RNG, b, 7, D), f32(RNG, 3 * D)
    a = {"num_heads": N}
    yield case("MultiHeadAttention", [q, k, v], attrs=a, note="cross")
    yield case("MultiHeadAttention", [q, k, v, bias], attrs=a, note="cross bias", const=(3,))
    lengths, keys = np.array([4, 7], np.int32), np.ones((b, 7), np.int32)
    keys[1, 5:] = 0
    yield case("MultiHeadAttention", [q, k, v, bias, lengths], attrs=a, note="lengths", const=(3,))
    yield case("MultiHeadAttention", [q, k, v, None, keys], attrs=a, note="keys")
    yield case("MultiHeadAttention", [q, k, v, None, None, f32(RNG, 1, N, s, 7)], attrs=a, note="score bias")
    yield case("MultiHeadAttention", [q, k, v, None, keys, f32(RNG, b, 1, s, 7)], attrs={**a, "mask_filter_value": -50.0}, note="both")
    yield case("MultiHeadAttention", [q, heads(k), heads(v)], attrs=a, note="finished cache")
    packed = f32(RNG, b, s, N, 3, H)
    parts = [packed[:, :, :, i].transpose(0, 2, 1, 3) for i in range(3)]
    yield case("MultiHeadAttention", [packed], attrs=a, note="packed", want=[attend(*parts)])
    pair = f32(RNG, b, 7, N, 2, H)
    kv = [pair[:, :, :, i].transpose(0, 2, 1, 3) for i in range(2)]
    yield case("MultiHeadAttention", [q, pair], attrs=a, note="packed keys", want=[attend(heads(q), *kv)])
    past = [f32(RNG, b, N, 3, H), f32(RNG, b, N, 3, H)]
    own = [f32(RNG, b, s, D) for _ in range(3)]
    full = np.ones((b, s + 3), np.int32)
    full[0, -1] = 0
    for uni in (0, 1):
        for mask in (None, full):
            yield case("MultiHeadAttention", [*own, None, mask, None, *past], attrs={**a, "unidirectional": uni}, outputs=("y", "k", "v"),
                       note=f"past uni={uni} mask={mask is not None}")
    scores = softmax(heads(own[0]).astype(np.float64) @ heads(own[1]).swapaxes(-1, -2) * H ** -0.5)
    rows = (RNG.random((b, s, s)) < 0.6).astype(np.int32)
    rows[..., 0] = 1
    hide = np.where(rows, 0.0, -10000.0)[:, None]
    yield case("MultiHeadAttention", [*own, None, rows], attrs=a, note="rows", want=[attend(*map(heads, own), bias=hide)])
    sums = np.array([4, 5, 0, 5, 10, 0, 4, 9], np.int32)
    hide = np.where(np.arange(s) < np.array([4, 5])[:, None], 0.0, -10000.0)[:, None, None]
    yield case("MultiHeadAttention", [*own, None, sums], attrs=a, note="lengths and sums", want=[attend(*map(heads, own), bias=hide)])
    yield case("MultiHeadAttention", own, attrs=a, outputs=("y", "", "", "qk"), note="probabilities",
               want=[attend(*map(heads, own)), scores.astype(np.float32)])


def decoding():
    b, room, past = 2, 9, 4
    one = [f32(RNG, b, 1, D) for _ in range(3)]
    cache = [f32(RNG, b, N, room, H) for _ in range(2)]
    bias = f32(RNG, 3 * D)
    length = np.array([past], np.int32)
    a = {"num_heads": N, "past_present_share_buffer": 1}
    def written(extra=(0, 0)):
        made = [c.copy() for c in cache]
        for c, x, e in zip(made, one[1:], extra):
            c[:, :, past] = (x + e).reshape(b, N, H)
        return made
    k, v = written()
    want = [attend(heads(one[0]), k[:, :, :past + 1], v[:, :, :past + 1]), k, v]
    outs = {"outputs": ("y", "k", "v")}
    yield case("DecoderMaskedMultiHeadAttention", [*one, None, None, *cache, length], attrs=a, want=want, note="buffer", **outs)
    yield case("MultiHeadAttention", [*one, None, None, None, *cache, length], attrs={"num_heads": N}, want=want, note="buffer", **outs)
    k, v = written((bias[D:2 * D], bias[2 * D:]))
    keys = np.ones((b, past + 1), np.int32)
    keys[0, 0] = 0
    hide = np.where(keys, 0.0, -10000.0)[:, None, None]
    yield case("DecoderMaskedMultiHeadAttention", [*one, None, None, *cache, length, None, None, bias], attrs=a, const=(10,), note="buffer bias",
               want=[attend(heads(one[0] + bias[:D]), k[:, :, :past + 1], v[:, :, :past + 1]), k, v], **outs)
    grown = [f32(RNG, b, N, past, H) for _ in range(2)]
    full = [np.concatenate([g, heads(x)], 2) for g, x in zip(grown, one[1:])]
    yield case("DecoderMaskedMultiHeadAttention", [*one, keys, None, *grown], attrs={"num_heads": N}, note="growing mask",
               want=[attend(heads(one[0]), *full, bias=hide), *full], **outs)
    yield case("DecoderMaskedMultiHeadAttention", [np.concatenate(one, 2), None, None, None, None, *grown], attrs={"num_heads": N},
               note="side by side", want=[attend(heads(one[0]), *full), *full], **outs)
    yield case("DecoderMaskedMultiHeadAttention", [one[0], heads(f32(RNG, b, 6, D)), heads(f32(RNG, b, 6, D))], attrs={"num_heads": N},
               note="cross")
    beams = RNG.integers(0, 2, (1, 2, room)).astype(np.int32)
    k, v = written()
    mixed = [np.stack([[c[beams[0, j, t], :, t] if t < past else c[j, :, t] for t in range(past + 1)] for j in range(2)]).transpose(0, 2, 1, 3)
             for c in (k, v)]
    yield case("DecoderMaskedMultiHeadAttention", [*one, None, None, *cache, length, np.array([2], np.int32), beams], attrs=a,
               note="beams", want=[attend(heads(one[0]), *mixed), k, v], **outs)
    w, x = f32(RNG, 12, 3 * D, scale=0.4), f32(RNG, b, 1, 12)
    proj = x @ w + bias
    both = np.stack(cache)
    new = both.copy()
    new[0, :, :, past], new[1, :, :, past] = proj[:, 0, D:2 * D].reshape(b, N, H), proj[:, 0, 2 * D:].reshape(b, N, H)
    yield case("DecoderMaskedSelfAttention", [x, w, bias, None, both, None, length], attrs=a, const=(1, 2), outputs=("y", "present"),
               want=[attend(heads(proj[:, :, :D]), new[0][:, :, :past + 1], new[1][:, :, :past + 1]), new])


def packed():
    lengths, s = [1, 2, 4], 4
    total = sum(lengths)
    kept = np.array([[j < n for j in range(s)] for n in lengths])
    flat = np.arange(kept.size).reshape(kept.shape)
    offset = np.concatenate([flat[kept], flat[~kept]]).reshape(kept.shape).astype(np.int32)
    sums = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows = [f32(RNG, total, D) for _ in range(3)]
    bias, add = f32(RNG, 3 * D), f32(RNG, 1, N, s, s)
    def truth(parts, extra=None):
        out = np.zeros((total, D), np.float32)
        for i, n in enumerate(lengths):
            q, k, v = (heads(p[None, sums[i]:sums[i + 1]]) for p in parts)
            out[sums[i]:sums[i + 1]] = attend(q, k, v, 0 if extra is None else extra[:, :, :n, :n])[0]
        return [out]
    a = {"num_heads": N}
    symbols = {"symbols": {total: "tokens", 3: "b"}}
    yield case("PackedMultiHeadAttention", [*rows, None, offset, sums], attrs=a, want=truth(rows), **symbols)
    shifted = [r + bias[D * i:D * (i + 1)] for i, r in enumerate(rows)]
    yield case("PackedMultiHeadAttention", [*rows, bias, offset, sums, add], attrs=a, const=(3,), want=truth(shifted, add), note="biases")
    one = np.stack([r.reshape(total, N, H) for r in rows], 2)
    yield case("PackedMultiHeadAttention", [one, None, None, None, offset, sums], attrs=a, want=truth(rows), note="packed", symbols={total: "tokens"})
    x, w = f32(RNG, total, 12), f32(RNG, 12, 3 * D, scale=0.4)
    proj = np.split(x @ w + bias, 3, 1)
    yield case("PackedAttention", [x, w, bias, offset, sums], attrs=a, const=(1, 2), want=truth(proj), **symbols)
    x = f32(RNG, 3, s, 6)
    yield case("RemovePadding", [x, np.array(lengths, np.int32)], outputs=("y", "offset", "sums", "longest"),
               want=[x[kept], offset, sums, np.array([4], np.int32)])
    back = np.zeros_like(x)
    back[kept] = x[kept]
    yield case("RestorePadding", [x[kept], offset], want=[back])


def rotate(x, cos, sin, at):
    """x [.., H] with tables [max, H / 2] at positions `at`, halves form."""
    half = x.shape[-1] // 2
    c, s = cos[at], sin[at]
    return np.concatenate([x[..., :half] * c - x[..., half:] * s, x[..., half:] * c + x[..., :half] * s], -1)


def paged():
    block, pages, lengths, past = 4, 8, [3, 1], [2, 6]
    kv, tokens = 1, sum(lengths)
    sums = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = np.array([[3, 1, -1], [0, 5, 2]], np.int32)
    caches = [f32(RNG, pages, block, kv, H) for _ in range(2)]
    q, k, v = f32(RNG, tokens, N * H), f32(RNG, tokens, kv * H), f32(RNG, tokens, kv * H)
    angle = np.arange(16)[:, None] * 0.3 ** np.arange(H // 2)
    tables = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    for rotary, window, slots in ((0, -1, None), (1, -1, None), (1, 3, None), (0, -1, [13, 14, -1, 20])):
        made, y = [c.copy() for c in caches], np.zeros((tokens, N * H), np.float32)
        where = [(s, i) for s, n in enumerate(lengths) for i in range(n)]
        pos = [past[s] + i for s, i in where]
        turn = (lambda x, t: rotate(x, *tables, pos[t])) if rotary else (lambda x, t: x)
        for t, (s, _) in enumerate(where):
            slot = slots[t] if slots else table[s, pos[t] // block] * block + pos[t] % block
            if slot >= 0:
                made[0].reshape(-1, kv, H)[slot] = turn(k[t].reshape(kv, H), t)
                made[1].reshape(-1, kv, H)[slot] = v[t].reshape(kv, H)
        for t, (s, _) in enumerate(where):
            rows = [table[s, j // block] * block + j % block for j in range(pos[t] + 1)][-window if window > 0 else 0:]
            ks, vs = (c.reshape(-1, kv, H)[rows].transpose(1, 0, 2)[None] for c in made)
            y[t] = attend(turn(q[t].reshape(N, H), t)[None, :, None], np.repeat(ks, N, 1), np.repeat(vs, N, 1))[0, 0]
        ins = [q, k, v, *caches, sums, np.array(past, np.int32), table, *(tables if rotary else (None, None)),
               np.array(slots, np.int32) if slots else None]
        a = {"num_heads": N, "kv_num_heads": kv, "do_rotary": rotary, "local_window_size": window}
        yield case("PagedAttention", ins, attrs=a, outputs=("y", "k", "v"), want=[y, *made], note=f"rotary={rotary} window={window} {slots}",
                   symbols={} if slots else {tokens: "tokens"} if tokens not in (block, N) else {})
    yield case("PagedAttention", ins, attrs={**a, "k_quant_type": "NONE"}, outputs=("y", "k", "v"), want=[y, *made], note="again")


def sparse():
    b, s, room, block, layouts = 1, 8, 32, 16, 2
    kv, size = 1, 16
    q, k, v = f32(RNG, b, s, N * size), f32(RNG, b, s, kv * size), f32(RNG, b, s, kv * size)
    past = [np.zeros((b, kv, room, size), np.float32) for _ in range(2)]
    rows = np.array([[0, 1, 2], [0, 1, 3]], np.int32)
    columns = np.array([[0, 1, -1], [0, 0, 1]], np.int32)
    ins = [q, k, v, *past, rows, columns, np.array([s], np.int32), np.array([s], np.int32)]
    a = {"num_heads": N, "kv_num_heads": kv, "sparse_block_size": block, "do_rotary": 0}
    made = [p.copy() for p in past]
    for c, x in zip(made, (k, v)):
        c[:, :, :s] = heads(x, kv)
    late = np.where(np.tri(s, dtype=bool), 0.0, -np.inf)
    y = attend(heads(q), *[np.repeat(c[:, :, :s], N, 1) for c in made], bias=late)
    yield case("SparseAttention", ins, attrs=a, outputs=("y", "k", "v"), note="prompt", want=[y, *made], symbols={s: "s"})
    at = 20
    past = [f32(RNG, b, kv, room, size) for _ in range(2)]
    one = [f32(RNG, b, 1, n * size) for n in (N, kv, kv)]
    made = [p.copy() for p in past]
    for c, x in zip(made, one[1:]):
        c[:, :, at] = x.reshape(b, kv, size)
    seen = np.array([[j // block in ([1] if n == 0 else [0, 1]) for j in range(at + 1)] for n in range(N)])
    y = attend(heads(one[0]), *[np.repeat(c[:, :, :at + 1], N, 1) for c in made], bias=np.where(seen, 0.0, -np.inf)[None, :, None])
    ins = [*one, *past, rows, columns, np.array([at + 1], np.int32), np.array([at + 1], np.int32)]
    yield case("SparseAttention", ins, attrs=a, outputs=("y", "k", "v"), note="token", want=[y, *made])


if __name__ == "__main__":
    sys.exit(main([*attention(), *multi_head(), *decoding(), *packed(), *paged(), *sparse()]))
