"""Every code of the 8-, 6- and 4-bit floats against ml_dtypes, both ways: all codes are decoded; encoded are all numbers
of f16, and every code of the type, the middles between neighbours and what lies beside them in f32.

usage: test_formats.py LIBRARY -- a shared object that exports the kernels. Exit code 1 when a number differs."""
import ctypes as C
import sys
import warnings

import ml_dtypes
import numpy as np

# ONNX number, numpy type; E8M0 has no sign, so only numbers above zero are encoded
TYPES = [(17, "float8_e4m3fn"), (18, "float8_e4m3fnuz"), (19, "float8_e5m2"), (20, "float8_e5m2fnuz"), (24, "float8_e8m0fnu"),
         (27, "float6_e2m3fn"), (28, "float6_e3m2fn"), (23, "float4_e2m1fn")]


class Library:
    def __init__(self, path):
        self.lib = C.CDLL(path)
        self.lib.k_cast.argtypes = [C.c_int, C.c_void_p, C.c_int, C.c_void_p, C.c_int64, C.c_bool]
        self.lib.dtype_from_onnx.argtypes = [C.c_int64]
        self.f32 = self.lib.dtype_from_onnx(1)

    def decode(self, number, codes, bits):
        out = np.empty(len(codes), np.float32)
        packed = np.packbits((codes[:, None] >> np.arange(bits) & 1).astype(np.uint8), bitorder="little")
        packed = np.concatenate([packed, np.zeros(8, np.uint8)])
        self.lib.k_cast(self.f32, out.ctypes.data, self.lib.dtype_from_onnx(number), packed.ctypes.data, len(codes), False)
        return out

    def encode(self, number, values, bits):
        values = np.ascontiguousarray(values, np.float32)
        out = np.zeros((len(values) * bits + 7) // 8 + 8, np.uint8)
        self.lib.k_cast(self.lib.dtype_from_onnx(number), out.ctypes.data, self.f32, values.ctypes.data, len(values), False)
        every = np.unpackbits(out, bitorder="little")[:len(values) * bits].reshape(-1, bits)
        return (every.astype(np.uint32) << np.arange(bits)).sum(1).astype(np.uint8)


def samples(known):
    """Numbers at which rounding decides."""
    known = np.unique(known[np.isfinite(known)])
    middle = ((known[1:].astype(np.float64) + known[:-1].astype(np.float64)) / 2).astype(np.float32)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    out = np.concatenate([known, middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf)), halves])
    return out[~np.isnan(out)]


def check(lib, number, name):
    t = getattr(ml_dtypes, name)
    bits = ml_dtypes.finfo(t).bits
    codes = np.arange(1 << bits, dtype=np.uint8)
    known = codes.view(t).astype(np.float32)
    have = lib.decode(number, codes, bits)
    wrong = ~((have.view(np.uint32) == known.view(np.uint32)) | (np.isnan(have) & np.isnan(known)))
    values = samples(known)
    if name == "float8_e8m0fnu":
        values = values[(values >= np.float32(2.0 ** -126)) & np.isfinite(values)]
    wanted = values.astype(t).view(np.uint8)
    bad = lib.encode(number, values, bits) != wanted
    for text, at in (("decodes", np.nonzero(wrong)[0]), ("encodes", np.nonzero(bad)[0])):
        if len(at):
            print(f"{name}: {text} {len(at)} numbers otherwise, the first is number {at[0]}"
                  + (f" ({values[at[0]]!r}: {wanted[at[0]]:#x})" if text == "encodes" else ""))
    return len(values) if not wrong.any() and not bad.any() else 0


def main():
    warnings.simplefilter("ignore")
    lib = Library(sys.argv[1])
    done = {name: check(lib, number, name) for number, name in TYPES}
    for name, count in done.items():
        print(f"{name}: {count} numbers" if count else f"{name}: FAILED")
    return 0 if all(done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
