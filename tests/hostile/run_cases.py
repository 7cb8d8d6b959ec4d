#!/usr/bin/env python3
"""Damaged and hostile model files against `npuc inspect`: each run must end soon, by itself, with a documented exit status and, when
refused, with an error line that names the file. The base models are the fuzz corpus. Standard library only.

  run_cases.py --npuc build/npuc --corpus fuzz/corpus
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile

SECONDS = 10


def varint(v):
    out = b""
    while v > 0x7F:
        out += bytes([v & 0x7F | 0x80])
        v >>= 7
    return out + bytes([v])


def ld(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def num(field, v):
    return varint(field << 3) + varint(v & (1 << 64) - 1)


def model(graph, opset=17):
    return num(1, 8) + ld(8, num(2, opset)) + ld(7, graph)


def value(name):
    return ld(1, name)


def external(entries):
    t = num(1, 4) + num(2, 1) + ld(8, "w") + num(14, 1) + b"".join(ld(13, ld(1, k) + ld(2, v)) for k, v in entries)
    node = ld(1, "w") + ld(2, "y") + ld(4, "Identity")
    return model(ld(1, node) + ld(5, t) + ld(12, value("y")))


def nested(levels):
    g = b""
    for _ in range(levels):
        g = ld(1, ld(5, ld(6, g)))
    return model(g)


def cases(corpus):
    """(name, bytes, must be refused)"""
    rng = random.Random(7)
    for name in sorted(os.listdir(corpus)):
        good = open(os.path.join(corpus, name), "rb").read()
        for n in range(0, len(good), 7):
            yield "%s cut at %d" % (name, n), good[:n], n < 8
        for k in range(12):
            b = bytearray(good)
            for _ in range(1 + k % 3):
                b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
            yield "%s flipped %d" % (name, k), bytes(b), False
    yield "length of 2^64-1", num(1, 8) + b"\x3a" + b"\xff" * 9 + b"\x01", True
    yield "nested 2000 deep", nested(2000), True
    yield "a million empty nodes", model(b"\x0a\0" * 1000000), True
    yield "a zip archive", b"PK\x03\x04" + bytes(60), True
    for entries in ([("location", "../w.bin")], [("location", "/etc/hostname")], [("location", "link.bin")], [("location", "d/../../w.bin")],
                    [("location", "w.bin"), ("offset", "60")], [("location", "w.bin"), ("offset", "-16")],
                    [("location", "w.bin"), ("offset", str((1 << 64) - 8))], [("location", "w.bin"), ("length", "12")],
                    [("location", "w.bin"), ("basepath", "/etc")], [("location", "d")], [("location", "")], [("location", "fifo")]):
        yield "external %s" % entries, external(entries), True
    yield "external, good", external([("location", "w.bin"), ("offset", "16"), ("length", "16")]), False


def run(npuc, folder, name, data, must_refuse):
    path = os.path.join(folder, "model.onnx")
    with open(path, "wb") as f:
        f.write(data)
    try:
        r = subprocess.run([npuc, "inspect", path], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "does not end"
    if r.returncode < 0 or r.returncode > 125 or r.returncode == 70:
        return "exit status %d: %s" % (r.returncode, r.stderr[-300:].decode(errors="replace"))
    if must_refuse and r.returncode == 0:
        return "accepted"
    if r.returncode and not any(b"model.onnx" in line and b"error" in line for line in r.stderr.splitlines()):
        return "no error line names the file"
    if any(c < 32 and c not in (9, 10) for c in r.stderr):
        return "control characters in a message"
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--npuc", required=True)
    p.add_argument("--corpus", required=True)
    o = p.parse_args()
    failed = n = 0
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "w.bin"), "wb").write(bytes(64))
        os.symlink("/etc/hostname", os.path.join(folder, "link.bin"))
        os.mkfifo(os.path.join(folder, "fifo"))
        os.mkdir(os.path.join(folder, "d"))
        for name, data, must_refuse in cases(o.corpus):
            n += 1
            why = run(os.path.abspath(o.npuc), folder, name, data, must_refuse)
            if why:
                failed += 1
                print("FAILED %s: %s" % (name, why))
    print("%d cases, %d failed" % (n, failed))
    return 1 if failed else 0


sys.exit(main())
