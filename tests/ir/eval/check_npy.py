#!/usr/bin/env python3
"""npuc-opt --eval on .npy inputs: results come back as .npy, sizes are bound from the inputs, contradictions are errors."""
import subprocess
import sys
import tempfile

import numpy as np

TEXT = """module {
  sym n in 1..100
  func @main(%a: f32[n,3], %b: f32[n,1]) -> (%y: f32[n,3], %s: i64[1], %t: f32[3,n]) {
    %y = Mul %a, %b : f32[n,3]
    %s = SizeOf {exprs=["3*n"]} : i64[1]
    %t = Transpose %a {perm=[1, 0]} : f32[3,n]
    Yield %y, %s, %t
  }
}
"""


def run(opt, folder, **inputs):
    command = [opt, "--eval", f"{folder}/m.ir", "--output-dir", folder]
    for name, value in inputs.items():
        np.save(f"{folder}/in-{name}.npy", value)
        command += ["--input", f"{name}={folder}/in-{name}.npy"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def main():
    opt = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/m.ir", "w", encoding="utf-8") as f:
            f.write(TEXT)
        a = np.arange(12, dtype=np.float32).reshape(4, 3)
        b = np.array([[1], [2], [3], [0.5]], dtype=np.float32)
        for order in (np.ascontiguousarray, np.asfortranarray):
            done = run(opt, folder, a=order(a), b=b)
            assert done.returncode == 0, done.stderr
            assert np.array_equal(np.load(f"{folder}/y.npy"), a * b)
            assert np.array_equal(np.load(f"{folder}/s.npy"), [12])
            assert np.array_equal(np.load(f"{folder}/t.npy"), a.T)
        done = run(opt, folder, a=a, b=b[:3])
        assert done.returncode == 3 and "size 0 is 3" in done.stderr, done.stderr
        done = run(opt, folder, a=a.astype(np.float64), b=b)
        assert done.returncode == 3 and "expected f32[n,3], found f64" in done.stderr, done.stderr
        done = run(opt, folder, a=a)
        assert done.returncode == 3 and "no --input" in done.stderr, done.stderr
    print("passed")


main()
